#include "device/device_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "sha256.h"

namespace ark {
namespace {

constexpr const char* kMagic = "arkinfer cache 1\n";
constexpr int64_t kMostBytes = int64_t{256} << 20;

std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value && value[0] == '/' ? value : "";
}

std::string digest(const std::string& key, const std::string& content) {
  return sha256_hex(key.data(), key.size()) + sha256_hex(content.data(), content.size());
}

std::string path_of(const std::string& kind, const std::string& key) {
  std::string folder = cache_folder();
  if (folder.empty()) return "";
  return folder + "/" + kind + "-" + sha256_hex(key.data(), key.size()).substr(0, 32);
}

// Whether nobody but this user can have written it: a program from here is run on the device.
bool is_own(const struct stat& status) {
  return status.st_uid == geteuid() && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

bool read_all(int file, std::string* text) {
  struct stat status;
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || !is_own(status)) return false;
  if (status.st_size <= 0 || status.st_size > kMostBytes) return false;
  text->resize(static_cast<size_t>(status.st_size));
  size_t done = 0;
  while (done < text->size()) {
    ssize_t got = read(file, &(*text)[done], text->size() - done);
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

bool write_all(int file, const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    ssize_t put = write(file, text.data() + done, text.size() - done);
    if (put <= 0) return false;
    done += static_cast<size_t>(put);
  }
  return true;
}

void make_folder(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    mkdir(path.substr(0, end).c_str(), 0700);
    if (end == std::string::npos) return;
  }
}

}  // namespace

std::string cache_folder() {
  std::string base = from_environment("XDG_CACHE_HOME");
  if (base.empty()) {
    base = from_environment("HOME");
    if (!base.empty()) base += base == "/" ? ".cache" : "/.cache";
  }
  return base.empty() ? "" : base + "/arkinfer";
}

bool read_cached(const std::string& kind, const std::string& key, std::string* content) {
  std::string path = path_of(kind, key);
  if (path.empty()) return false;
  struct stat folder;
  if (stat(cache_folder().c_str(), &folder) != 0 || !is_own(folder)) return false;
  int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) return false;
  std::string text;
  bool whole = read_all(file, &text);
  close(file);
  const std::string magic = kMagic;
  const size_t head = magic.size() + 128;
  if (!whole || text.size() < head || text.compare(0, magic.size(), magic) != 0) return false;
  std::string found = text.substr(head);
  if (text.compare(magic.size(), 128, digest(key, found)) != 0) return false;
  *content = std::move(found);
  return true;
}

void write_cached(const std::string& kind, const std::string& key, const std::string& content) {
  std::string path = path_of(kind, key);
  if (path.empty() || static_cast<int64_t>(content.size()) > kMostBytes / 2) return;
  make_folder(cache_folder());
  std::string beside = path + ".XXXXXX";
  int file = mkstemp(&beside[0]);
  if (file < 0) return;
  bool whole = write_all(file, kMagic + digest(key, content) + content);
  whole = fsync(file) == 0 && whole;
  whole = close(file) == 0 && whole;
  if (!whole || rename(beside.c_str(), path.c_str()) != 0) unlink(beside.c_str());
}

}  // namespace ark
