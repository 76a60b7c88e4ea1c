// load_hdf5_slide, write_hdf5_slide: libhdf5 works in a process of its own, and what it finds comes back through a pipe.
// Why: libhdf5 (1.10.8 and others) writes and reads out of bounds, crashes, or never ends on files that were damaged on purpose or by accident (H5HG_read, lists of
// attributes, new-style headers: tests/test_slide_features.cpp finds dozens). Here that ends the child, and the caller gets an Error. After a
// full disk it cannot close its file and crashes when the program ends: so writing, too, is the child's.
// The child inherits this process's memory; it opens nothing but the file, and leaves no core file. Not a defence against a file that
// takes over libhdf5: such a child still has this user's rights.
#include <sys/resource.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "loaders/slide_hdf5.h"
#include "loaders/slide_parts.h"

namespace bg {
namespace {

constexpr uint64_t most_message = 4096;

void reset_signals() {
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU, SIGPIPE, SIGTERM, SIGINT}) sigaction(signal, &plain, nullptr);
  std::signal(SIGXFSZ, SIG_IGN);  // over the size that is allowed: an error of write, which has words
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// A file that keeps libhdf5 busy for ever ends here. Reading takes well under a second per 100 MB.
void limit_child(uint64_t bytes) {
  const rlimit core{0, 0}, seconds{3 + bytes / 20'000'000, 4 + bytes / 20'000'000};
  setrlimit(RLIMIT_CORE, &core);
  setrlimit(RLIMIT_CPU, &seconds);
  const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);  // the C library prints before it aborts
  if (nowhere >= 0) dup2(nowhere, STDOUT_FILENO), dup2(nowhere, STDERR_FILENO);
}

template <class Body>
[[noreturn]] void run_child(const std::string& path, uint64_t bytes, int fd, Body body) {
  reset_signals();
  limit_child(bytes);
  const SlidePipe pipe(fd);
  const auto report = [&pipe](Status status, const std::string& what) {
    pipe.send(SlideFrame::error, std::string(1, char(status)) + what.substr(0, most_message - 1));
  };
  try {
    body(pipe);
    pipe.send(SlideFrame::done, "");
  } catch (const Error& e) {
    report(e.status(), e.what());
  } catch (const std::exception& e) {
    report(Status::too_large, path + ": libhdf5 ran out of memory");
  }
  _exit(0);
}

// False at the end of the stream.
bool receive(int fd, void* data, uint64_t bytes) {
  char* p = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = read(fd, p, size_t(std::min<uint64_t>(bytes, 1 << 20)));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    bytes -= uint64_t(n);
  }
  return true;
}

// Takes the frames of a child that may have lost its mind: every size is checked again. False when the stream ends or makes no sense before `done`.
class Receiver {
 public:
  Receiver(int fd, uint64_t file_bytes) : fd_(fd), most_bytes_(file_bytes < UINT64_MAX / most_packing ? file_bytes * most_packing : UINT64_MAX) {}

  bool run(SlideFeatures* slide) {
    for (;;) {
      std::array<uint64_t, 2> head;
      if (!receive(fd_, head.data(), sizeof head)) return false;
      const uint64_t bytes = head[1];
      switch (SlideFrame(head[0])) {
        case SlideFrame::error: return take_error(bytes);
        case SlideFrame::shape:
          if (!take_shape(bytes, slide)) return false;
          break;
        case SlideFrame::attribute:
          if (!take_attribute(bytes, slide)) return false;
          break;
        case SlideFrame::features:
          if (!take_rows(bytes, &slide->features, &features_)) return false;
          break;
        case SlideFrame::coords:
          if (!take_rows(bytes, &slide->coords, &coords_)) return false;
          break;
        case SlideFrame::done: return bytes == 0 && shaped_ && features_ == slide->features.size() && coords_ == slide->coords.size();
        default: return false;
      }
    }
  }

  // For a child that only works: true when it is done.
  bool finish() {
    std::array<uint64_t, 2> head;
    if (!receive(fd_, head.data(), sizeof head)) return false;
    return SlideFrame(head[0]) == SlideFrame::error ? take_error(head[1]) : SlideFrame(head[0]) == SlideFrame::done;
  }

 private:
  bool take_text(uint64_t bytes, uint64_t most, std::string* text) {
    if (bytes > most) return false;
    text->resize(size_t(bytes));
    return receive(fd_, text->data(), bytes);
  }
  bool take_error(uint64_t bytes) {
    std::string text;
    if (!take_text(bytes, most_message, &text) || text.empty()) return false;
    const Status status = Status(text[0]);
    const bool known = status == Status::unsupported || status == Status::too_large || status == Status::internal || status == Status::io;
    throw Error(known ? status : Status::bad_file, text.substr(1));
  }
  bool take_shape(uint64_t bytes, SlideFeatures* slide) {
    std::array<int64_t, 3> s;  // tiles, width, whether there are coords
    if (shaped_ || bytes != sizeof s || !receive(fd_, s.data(), sizeof s)) return false;
    if (s[0] < 1 || s[0] > most_tiles || s[1] < 1 || s[1] > most_width || uint64_t(s[0]) * uint64_t(s[1]) * sizeof(float) / 2 > most_bytes_) return false;
    slide->tiles = s[0];
    slide->width = s[1];
    slide->features.resize(size_t(s[0]) * size_t(s[1]));
    slide->coords.resize(s[2] ? size_t(s[0]) * 2 : 0);
    return shaped_ = true;
  }
  bool take_attribute(uint64_t bytes, SlideFeatures* slide) {
    std::string text;
    if (slide->attributes.size() >= 2 * most_attributes || !take_text(bytes, 8 * most_attribute_bytes, &text)) return false;
    const size_t end = text.find('\0');
    if (end == std::string::npos) return false;
    slide->attributes.emplace(text.substr(0, end), text.substr(end + 1));
    return true;
  }
  template <class T>
  bool take_rows(uint64_t bytes, std::vector<T>* out, size_t* filled) {
    if (bytes % sizeof(T) != 0 || bytes / sizeof(T) > out->size() - *filled || !receive(fd_, out->data() + *filled, bytes)) return false;
    *filled += size_t(bytes / sizeof(T));
    return true;
  }

  int fd_;
  uint64_t most_bytes_;
  bool shaped_ = false;
  size_t features_ = 0, coords_ = 0;
};

// A process that runs body(pipe), and the reading end of its pipe; both are released whichever way the caller is left.
struct Child {
  pid_t pid = -1;
  int fd = -1;

  template <class Body>
  Child(const std::string& path, uint64_t bytes, Body body) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw Error(Status::io, path + ": no pipe to libhdf5: " + std::strerror(errno) + "; close files or programs");
    fd = ends[0];
    pid = fork();
    if (pid == 0) run_child(path, bytes, ends[1], body);
    const int code = errno;
    close(ends[1]);
    if (pid > 0) return;
    close(fd);
    throw Error(Status::io, path + ": no process for libhdf5: " + std::strerror(code) + "; close programs, or use .safetensors");
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    close(fd);
    kill(pid, SIGKILL);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
};

}  // namespace

void SlidePipe::send(SlideFrame kind, const void* data, uint64_t bytes) const {
  const std::array<uint64_t, 2> head = {uint64_t(kind), bytes};
  for (const auto& [start, count] : {std::pair<const void*, uint64_t>{head.data(), sizeof head}, {data, bytes}}) {
    const char* p = static_cast<const char*>(start);
    for (uint64_t left = count; left > 0;) {
      const ssize_t n = write(fd_, p, size_t(left));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) _exit(1);  // nobody listens
      p += n;
      left -= uint64_t(n);
    }
  }
}

SlideFeatures load_hdf5_slide(const std::string& path, uint64_t file_bytes) {
  const Child child(path, file_bytes, [&](const SlidePipe& pipe) { read_hdf5_slide(path, file_bytes, pipe); });
  SlideFeatures slide;
  if (!Receiver(child.fd, file_bytes).run(&slide))
    throw Error(Status::bad_file, path + ": libhdf5 crashed or did not end while reading it; the file is damaged, copy it again or extract the features again");
  slide.format = slide.attributes.count("patch_size_level0") || slide.attributes.count("encoder") ? "Trident HDF5" : "CLAM HDF5";
  return slide;
}

void write_hdf5_slide(const std::string& temporary, const SlideFeatures& slide) {
  const uint64_t bytes = slide.features.size() * sizeof(float);
  const Child child(temporary, bytes, [&](const SlidePipe&) { write_hdf5_file(temporary, slide); });
  if (!Receiver(child.fd, bytes).finish()) throw Error(Status::io, temporary + ": libhdf5 crashed while writing it; check the free space. Nothing was left behind");
}

}  // namespace bg
