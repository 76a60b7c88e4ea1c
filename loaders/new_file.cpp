// See new_file.h.
#include "loaders/new_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "loaders/error.h"

namespace bg {

NewFile::NewFile(const std::string& target) : target_(target), temporary_(target + ".part-" + std::to_string(getpid())) {
  struct stat info;
  if (stat(target.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) throw Error(Status::io, target + ": exists and is not a regular file; give another name");
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) throw Error(Status::io, temporary_ + ": cannot be created: " + std::strerror(errno) + "; check that the folder exists and can be written");
}

NewFile::~NewFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void NewFile::fail(const char* what) const { throw Error(Status::io, target_ + ": " + what + ": " + std::strerror(errno) + "; nothing was left behind"); }

void NewFile::write_at(uint64_t offset, const void* data, uint64_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = pwrite(fd_, p, bytes, off_t(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot be written");
    p += n, offset += uint64_t(n), bytes -= uint64_t(n);
  }
}

void NewFile::append(const void* data, uint64_t bytes) {
  write_at(size_, data, bytes);
  size_ += bytes;
}

void NewFile::overwrite(uint64_t offset, const void* data, uint64_t bytes) { write_at(offset, data, bytes); }

void NewFile::commit() {
  if (fsync(fd_) != 0) fail("cannot be made durable");
  if (std::rename(temporary_.c_str(), target_.c_str()) != 0) fail("cannot be renamed into place");
  close(fd_);
  fd_ = -1;
  // The name, too, should survive a power cut. Some file systems cannot sync a folder: the file itself is complete then as well.
  const size_t slash = target_.rfind('/');
  const std::string folder_name = slash == std::string::npos ? "." : slash == 0 ? "/" : target_.substr(0, slash);
  const int folder = open(folder_name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  fsync(folder);
  close(folder);
}

}  // namespace bg
