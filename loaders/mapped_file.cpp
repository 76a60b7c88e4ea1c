// mmap of a regular file. See mapped_file.h. A file that is shortened by somebody else while it is mapped ends the process (SIGBUS): the
// converter and the runtime therefore write their own files under another name and rename them.
#include "loaders/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "loaders/error.h"

namespace bg {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  // O_NONBLOCK: a pipe in the place of a file is refused below instead of waiting for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw Error(Status::not_found, path + ": cannot be opened: " + std::strerror(errno) + "; check the path and its permissions");
  struct stat info;
  if (fstat(fd, &info) != 0) {
    const int code = errno;
    close(fd);
    throw Error(Status::io, path + ": size cannot be read: " + std::strerror(code));
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    throw Error(Status::io, path + ": is not a regular file; give the path of a file");
  }
  size_ = size_t(info.st_size);
  void* p = size_ == 0 ? nullptr : mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  const int code = errno;
  close(fd);
  if (p == MAP_FAILED) throw Error(Status::io, path + ": cannot be mapped (" + std::to_string(size_) + " bytes): " + std::strerror(code));
  data_ = static_cast<const uint8_t*>(p);
  if (p) madvise(p, size_, MADV_HUGEPAGE);  // a wish: few file systems keep files in huge pages
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::forget(size_t offset, size_t bytes) const {
  if (offset >= size_) return;
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const size_t first = offset / page * page;
  const size_t last = bytes > size_ - offset ? size_ : offset + bytes;
  // A hint: the pages are clean, a later read brings them back from the file.
  madvise(const_cast<uint8_t*>(data_) + first, last - first, MADV_DONTNEED);
}

}  // namespace bg
