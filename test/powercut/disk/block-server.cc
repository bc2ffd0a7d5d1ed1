// A block device that remembers every write and flush: a FUSE filesystem with one file, `disk`, behind a loop device. It speaks the
// kernel's FUSE protocol itself, so it needs nothing but Linux headers; root, /dev/fuse and loop devices it does need.
//
//   block-server MOUNTPOINT SIZE_BYTES
//
// One line on standard input is one command, one line on standard output its answer ("ok …" or "error ERRNO text"):
//
//   attach                      connects a loop device: "ok /dev/loopN"
//   detach
//   mount TYPE TARGET OPTIONS   attaches, reads back what the device shows, mounts it ("-": no options)
//   umount                      unmounts and detaches
//   record NAME                 starts a recording whose base is what the disk holds now
//   mark TEXT                   puts a note into the recording under way
//   stop                        ends the recording under way
//   log NAME                    "ok COUNT", then one line each: "w OFFSET LENGTH", "f" (a flush), "m TEXT"
//   state NAME COUNT [I:A-B]…   the disk becomes the recording's base, its first COUNT entries, then of entry I the sectors A to B
//   forget NAME                 drops a recording
//   quit
//
// All offsets and lengths are bytes; sectors have 512. The end of standard input is the same as quit: everything is unmounted.
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/loop.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

constexpr size_t pageBytes = 4096;
constexpr size_t sectorBytes = 512;
constexpr uint32_t maxWriteBytes = 1 << 20;
constexpr uint64_t fileNode = 2;

using Page = std::array<uint8_t, pageBytes>;
using Image = std::unordered_map<uint64_t, std::shared_ptr<Page>>;  // Pages are shared between images and copied when written.

const Page zeros{};

struct Entry {
  char kind;  // 'w', 'f' or 'm'
  uint64_t offset = 0;
  std::string data;  // What was written, or the text of a mark.
};

struct Recording {
  Image base;
  std::vector<Entry> log;
};

struct Disk {
  std::mutex mutex;
  uint64_t sizeBytes = 0;
  Image image;
  std::map<std::string, Recording> recordings;
  Recording* recording = nullptr;

  void write(uint64_t offset, const uint8_t* data, size_t length) {
    while (length > 0) {
      const uint64_t page = offset / pageBytes;
      const size_t at = offset % pageBytes;
      const size_t count = std::min(length, pageBytes - at);
      // What was never written reads as zeros, and mkfs writes many: nothing is kept for them.
      if (count == pageBytes && memcmp(data, zeros.data(), pageBytes) == 0) {
        image.erase(page);
        offset += count; data += count; length -= count;
        continue;
      }
      auto& slot = image[page];
      if (!slot) slot = std::make_shared<Page>(Page{});
      else if (slot.use_count() > 1) slot = std::make_shared<Page>(*slot);
      memcpy(slot->data() + at, data, count);
      offset += count; data += count; length -= count;
    }
  }

  void read(uint64_t offset, uint8_t* out, size_t length) const {
    while (length > 0) {
      const size_t at = offset % pageBytes;
      const size_t count = std::min(length, pageBytes - at);
      const auto found = image.find(offset / pageBytes);
      if (found == image.end()) memset(out, 0, count);
      else memcpy(out, found->second->data() + at, count);
      offset += count; out += count; length -= count;
    }
  }
};

Disk disk;
int fuseFd = -1;
std::string mountPoint;

// ---------------------------------------------------------------- FUSE

void answer(uint64_t unique, int error, const void* body, size_t length) {
  std::vector<uint8_t> out(sizeof(fuse_out_header) + length);
  auto* header = reinterpret_cast<fuse_out_header*>(out.data());
  header->len = static_cast<uint32_t>(out.size());
  header->error = -error;
  header->unique = unique;
  if (length > 0) memcpy(out.data() + sizeof(fuse_out_header), body, length);
  // ENOENT: the request was interrupted meanwhile.
  if (::write(fuseFd, out.data(), out.size()) < 0 && errno != ENOENT) perror("block-server: answer");
}

fuse_attr attributesOf(uint64_t node) {
  fuse_attr attr{};
  attr.ino = node;
  attr.nlink = 1;
  attr.blksize = pageBytes;
  if (node == fileNode) {
    attr.mode = S_IFREG | 0600;
    attr.size = disk.sizeBytes;
    attr.blocks = disk.sizeBytes / sectorBytes;
  } else {
    attr.mode = S_IFDIR | 0700;
  }
  return attr;
}

void answerInit(const fuse_in_header& in, const fuse_init_in& init) {
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = std::min<uint32_t>(init.minor, FUSE_KERNEL_MINOR_VERSION);
  out.max_readahead = init.max_readahead;
  out.flags = init.flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES);
  out.max_background = 16;
  out.congestion_threshold = 12;
  out.max_write = maxWriteBytes;
  out.max_pages = maxWriteBytes / pageBytes;
  answer(in.unique, 0, &out, sizeof out);
}

void answerWrite(const fuse_in_header& in, const fuse_write_in& write, const uint8_t* data) {
  {
    const std::lock_guard guard(disk.mutex);
    disk.write(write.offset, data, write.size);
    if (disk.recording != nullptr) disk.recording->log.push_back({'w', write.offset, std::string(reinterpret_cast<const char*>(data), write.size)});
  }
  fuse_write_out out{};
  out.size = write.size;
  answer(in.unique, 0, &out, sizeof out);
}

void answerRead(const fuse_in_header& in, const fuse_read_in& read) {
  const uint64_t end = std::min(disk.sizeBytes, read.offset + read.size);
  std::vector<uint8_t> out(read.offset < end ? end - read.offset : 0);
  {
    const std::lock_guard guard(disk.mutex);
    disk.read(read.offset, out.data(), out.size());
  }
  answer(in.unique, 0, out.data(), out.size());
}

// Handles one request; false when the filesystem is gone.
bool serveOne(std::vector<uint8_t>& buffer) {
  const ssize_t got = ::read(fuseFd, buffer.data(), buffer.size());
  if (got < 0) return errno == EINTR || errno == EAGAIN || errno == ENOENT;
  const auto& in = *reinterpret_cast<const fuse_in_header*>(buffer.data());
  const uint8_t* body = buffer.data() + sizeof(fuse_in_header);
  switch (in.opcode) {
    case FUSE_INIT: answerInit(in, *reinterpret_cast<const fuse_init_in*>(body)); break;
    case FUSE_LOOKUP: {
      if (std::string(reinterpret_cast<const char*>(body)) != "disk") { answer(in.unique, ENOENT, nullptr, 0); break; }
      fuse_entry_out out{};
      out.nodeid = fileNode;
      out.entry_valid = out.attr_valid = 1u << 30;
      out.attr = attributesOf(fileNode);
      answer(in.unique, 0, &out, sizeof out);
      break;
    }
    case FUSE_GETATTR: case FUSE_SETATTR: {
      fuse_attr_out out{};
      out.attr_valid = 1u << 30;
      out.attr = attributesOf(in.nodeid);
      answer(in.unique, 0, &out, sizeof out);
      break;
    }
    case FUSE_OPEN: {
      // No page cache between the loop device and the record.
      fuse_open_out out{};
      out.open_flags = FOPEN_DIRECT_IO;
      answer(in.unique, 0, &out, sizeof out);
      break;
    }
    case FUSE_READ: answerRead(in, *reinterpret_cast<const fuse_read_in*>(body)); break;
    case FUSE_WRITE: answerWrite(in, *reinterpret_cast<const fuse_write_in*>(body), body + sizeof(fuse_write_in)); break;
    case FUSE_FSYNC: {
      {
        const std::lock_guard guard(disk.mutex);
        if (disk.recording != nullptr) disk.recording->log.push_back({'f', 0, {}});
      }
      answer(in.unique, 0, nullptr, 0);
      break;
    }
    case FUSE_STATFS: {
      fuse_statfs_out out{};
      answer(in.unique, 0, &out, sizeof out);
      break;
    }
    case FUSE_RELEASE: answer(in.unique, 0, nullptr, 0); break;
    case FUSE_FORGET: case FUSE_BATCH_FORGET: case FUSE_INTERRUPT: break;
    case FUSE_DESTROY: return false;
    default: answer(in.unique, ENOSYS, nullptr, 0);
  }
  return true;
}

// ---------------------------------------------------------------- commands

struct Failed {
  int error;
  std::string what;
};

[[noreturn]] void fail(const std::string& what) { throw Failed{errno, what}; }

std::string loopPath;
int loopFd = -1;
std::string mountedAt;
// Two minutes of 5 ms each.
constexpr int unusedAttempts = 24000;

int openLoop(int number) {
  loopPath = "/dev/loop" + std::to_string(number);
  int fd = open(loopPath.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) {
    mknod(loopPath.c_str(), S_IFBLK | 0600, makedev(7, static_cast<unsigned>(number)));
    fd = open(loopPath.c_str(), O_RDWR | O_CLOEXEC);
  }
  return fd;
}

// Others use loop devices too: whoever comes first has one.
void attach() {
  if (loopFd >= 0) return;
  const int backing = open((mountPoint + "/disk").c_str(), O_RDWR | O_CLOEXEC);
  if (backing < 0) fail("open the disk");
  const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  for (int attempt = 0; attempt < 100 && control >= 0; attempt++) {
    const int number = ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) break;
    const int fd = openLoop(number);
    if (fd < 0) break;
    loop_config config{};
    config.fd = static_cast<uint32_t>(backing);
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (ioctl(fd, LOOP_CONFIGURE, &config) == 0) { loopFd = fd; break; }
    const int error = errno;
    close(fd);
    if (error != EBUSY) { errno = error; break; }
    usleep(2000);
  }
  const int error = errno;
  if (control >= 0) close(control);
  close(backing);
  if (loopFd < 0) { errno = error; fail("configure a loop device"); }
}

void detach() {
  if (loopFd < 0) return;
  ioctl(loopFd, LOOP_CLR_FD);
  close(loopFd);
  loopFd = -1;
}

// What the loop device shows must be what the disk holds: a stale buffer would make a crash state that never was.
void readBack() {
  Image image;
  {
    const std::lock_guard guard(disk.mutex);
    image = disk.image;
  }
  std::vector<uint64_t> pages;
  for (const auto& [page, content] : image) pages.push_back(page);
  std::sort(pages.begin(), pages.end());
  std::vector<uint8_t> buffer(256 * pageBytes);
  for (size_t first = 0; first < pages.size();) {
    size_t count = 1;
    while (first + count < pages.size() && count < 256 && pages[first + count] == pages[first] + count) count++;
    const auto length = static_cast<ssize_t>(count * pageBytes);
    if (pread(loopFd, buffer.data(), count * pageBytes, static_cast<off_t>(pages[first] * pageBytes)) != length) fail("read back");
    for (size_t at = 0; at < count; at++) {
      if (memcmp(buffer.data() + at * pageBytes, image[pages[first + at]]->data(), pageBytes) != 0) { errno = EUCLEAN; fail("read back: page " + std::to_string(pages[first + at])); }
    }
    first += count;
  }
}

unsigned long mountFlags(std::string& options) {
  unsigned long flags = MS_NOATIME | MS_NODEV;
  if (options == "-") options.clear();
  if (options.rfind("ro", 0) == 0 && (options.size() == 2 || options[2] == ',')) {
    flags |= MS_RDONLY;
    options.erase(0, options.size() == 2 ? 2 : 3);
  }
  return flags & ~static_cast<unsigned long>(MS_NODEV);
}

void mountDisk(const std::string& type, const std::string& target, std::string options) {
  attach();
  try {
    readBack();
    // The pages just read are dropped with the last user of the device.
    ioctl(loopFd, BLKFLSBUF);
    const auto flags = mountFlags(options);
    if (mount(loopPath.c_str(), target.c_str(), type.c_str(), flags, options.c_str()) != 0) fail("mount " + loopPath);
  } catch (...) {
    detach();
    throw;
  }
  mountedAt = target;
}

// A process that made a mount namespace of its own meanwhile, as container engines do, has a copy of the mount in it: until that is gone
// the filesystem lives, goes on to write, and keeps its UUID from being mounted a second time.
void waitUntilUnused() {
  for (int attempt = 0; attempt < unusedAttempts; attempt++) {
    const int fd = open(loopPath.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC);
    if (fd >= 0) { close(fd); return; }
    if (errno != EBUSY) fail("open the unmounted device");
    usleep(5000);
  }
  errno = EBUSY;
  fail("umount: another mount namespace still has the filesystem");
}

void unmountDisk() {
  if (!mountedAt.empty()) {
    int result = -1;
    for (int attempt = 0; attempt < 200 && (result = umount2(mountedAt.c_str(), 0)) != 0 && errno == EBUSY; attempt++) usleep(5000);
    if (result != 0) fail("umount");
    mountedAt.clear();
    waitUntilUnused();
  }
  detach();
}

Recording& recordingOf(const std::string& name) {
  const auto found = disk.recordings.find(name);
  if (found == disk.recordings.end()) { errno = ENOENT; fail("recording " + name); }
  return found->second;
}

void makeState(std::istringstream& words) {
  std::string name;
  size_t count = 0;
  words >> name >> count;
  Recording& recording = recordingOf(name);
  disk.image = recording.base;
  const auto apply = [&](size_t index, size_t from, size_t to) {
    const Entry& entry = recording.log.at(index);
    const size_t begin = std::min(entry.data.size(), from * sectorBytes);
    const size_t end = std::min(entry.data.size(), to * sectorBytes);
    if (entry.kind == 'w') disk.write(entry.offset + begin, reinterpret_cast<const uint8_t*>(entry.data.data()) + begin, end - begin);
  };
  for (size_t index = 0; index < count; index++) apply(index, 0, SIZE_MAX / sectorBytes);
  size_t index = 0, from = 0, to = 0;
  char colon = 0, dash = 0;
  while (words >> index >> colon >> from >> dash >> to) apply(index, from, to);
}

void printLog(const Recording& recording) {
  std::cout << "ok " << recording.log.size() << "\n";
  for (const Entry& entry : recording.log) {
    if (entry.kind == 'w') std::cout << "w " << entry.offset << ' ' << entry.data.size() << "\n";
    else if (entry.kind == 'm') std::cout << "m " << entry.data << "\n";
    else std::cout << "f\n";
  }
}

// Runs one command. What touches the file through the kernel must not hold the mutex, which the FUSE thread needs.
void run(const std::string& line) {
  std::istringstream words(line);
  std::string command, name;
  words >> command;
  if (command == "attach") { attach(); std::cout << "ok " << loopPath << "\n"; return; }
  if (command == "detach") { detach(); std::cout << "ok\n"; return; }
  if (command == "mount") {
    std::string type, target, options;
    words >> type >> target >> options;
    mountDisk(type, target, options);
    std::cout << "ok\n";
    return;
  }
  if (command == "umount") { unmountDisk(); std::cout << "ok\n"; return; }
  const std::lock_guard guard(disk.mutex);
  if (command == "state") { makeState(words); std::cout << "ok\n"; return; }
  if (command == "mark") {
    std::getline(words >> std::ws, name);
    if (disk.recording != nullptr) disk.recording->log.push_back({'m', 0, name});
    std::cout << "ok\n";
    return;
  }
  words >> name;
  if (command == "log") { printLog(recordingOf(name)); return; }
  if (command == "record") { disk.recordings[name] = Recording{disk.image, {}}; disk.recording = &disk.recordings[name]; }
  else if (command == "stop") disk.recording = nullptr;
  else if (command == "forget") disk.recordings.erase(name);
  else { errno = EINVAL; fail("command " + command); }
  std::cout << "ok\n";
}

void commandLoop() {
  std::string line;
  while (std::getline(std::cin, line) && line != "quit") {
    try {
      run(line);
    } catch (const Failed& failed) {
      std::cout << "error " << failed.error << ' ' << failed.what << ": " << strerror(failed.error) << "\n";
    } catch (const std::exception& error) {
      std::cout << "error 0 " << error.what() << "\n";
    }
    std::cout.flush();
  }
  if (!mountedAt.empty()) umount2(mountedAt.c_str(), MNT_DETACH);
  detach();
  umount2(mountPoint.c_str(), MNT_DETACH);
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) { fprintf(stderr, "usage: block-server MOUNTPOINT SIZE_BYTES\n"); return 2; }
  mountPoint = argv[1];
  disk.sizeBytes = strtoull(argv[2], nullptr, 10);
  fuseFd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fuseFd < 0) { perror("block-server: /dev/fuse"); return 1; }
  const std::string options = "fd=" + std::to_string(fuseFd) + ",rootmode=40000,user_id=0,group_id=0,max_read=" + std::to_string(maxWriteBytes);
  if (mount("block-server", mountPoint.c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) { perror("block-server: mount"); return 1; }
  std::cout << "ok" << std::endl;
  std::thread(commandLoop).detach();
  std::vector<uint8_t> buffer(maxWriteBytes + pageBytes);
  while (serveOne(buffer)) {}
  return 0;
}
