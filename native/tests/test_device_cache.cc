// The cache of what was found out about devices: hostile files count as absent.
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "check.h"
#include "device/device_cache.h"
#include "fixture.h"

using namespace ark;
using namespace ark::testing;

namespace {

// A cache folder of its own, removed with the object.
class TemporaryCache {
 public:
  TemporaryCache() {
    std::string pattern = "/tmp/ark-cache-XXXXXX";
    CHECK(mkdtemp(&pattern[0]) != nullptr);
    root_ = pattern;
    setenv("XDG_CACHE_HOME", root_.c_str(), 1);
  }
  ~TemporaryCache() {
    for (const std::string& name : names()) unlink((cache_folder() + "/" + name).c_str());
    rmdir(cache_folder().c_str());
    rmdir(root_.c_str());
    unsetenv("XDG_CACHE_HOME");
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    DIR* folder = opendir(cache_folder().c_str());
    if (!folder) return found;
    while (const dirent* entry = readdir(folder)) {
      if (entry->d_name[0] != '.') found.push_back(entry->d_name);
    }
    closedir(folder);
    return found;
  }
  std::string only() const {
    CHECK(names().size() == 1);
    return cache_folder() + "/" + names()[0];
  }

 private:
  std::string root_;
};

bool holds(const std::string& key, const std::string& expected) {
  std::string found;
  return read_cached("kind", key, &found) && found == expected;
}

}  // namespace

TEST(cached_content_comes_back_for_its_key_alone) {
  TemporaryCache cache;
  std::string found;
  CHECK(!read_cached("kind", "key", &found));
  const std::string content("a\0b\n", 4);
  write_cached("kind", "key", content);
  CHECK(holds("key", content));
  CHECK(!holds("other", content));
  CHECK(!read_cached("other", "key", &found));
  write_cached("kind", "key", "new");
  CHECK(holds("key", "new"));
  CHECK(cache.names().size() == 1);  // nothing is left of what was written beside
}

TEST(damaged_and_foreign_cache_files_count_as_absent) {
  TemporaryCache cache;
  write_cached("kind", "key", "content");
  const std::string path = cache.only();
  const std::string whole = read_file(path);
  for (size_t size : {size_t{0}, size_t{10}, size_t{100}, whole.size() - 1}) {
    write_file(path, whole.substr(0, size));
    CHECK(!holds("key", "content"));
  }
  for (size_t at : {size_t{0}, size_t{20}, size_t{100}, whole.size() - 1}) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    write_file(path, changed);
    CHECK(!holds("key", "content"));
  }
  write_file(path, whole);
  CHECK(holds("key", "content"));
  CHECK(chmod(path.c_str(), 0622) == 0);
  CHECK(!holds("key", "content"));
  CHECK(chmod(path.c_str(), 0600) == 0);
  CHECK(chmod(cache_folder().c_str(), 0777) == 0);
  CHECK(!holds("key", "content"));
  CHECK(chmod(cache_folder().c_str(), 0700) == 0);
  CHECK(rename(path.c_str(), (path + "x").c_str()) == 0);
  CHECK(symlink((path + "x").c_str(), path.c_str()) == 0);
  CHECK(!holds("key", "content"));
  unlink(path.c_str());
  CHECK(mkfifo(path.c_str(), 0600) == 0);
  CHECK(!holds("key", "content"));
}

TEST(without_a_folder_nothing_is_cached) {
  const char* home = getenv("HOME");
  const std::string before = home ? home : "";
  setenv("XDG_CACHE_HOME", "relative", 1);
  setenv("HOME", "also relative", 1);
  CHECK(cache_folder().empty());
  write_cached("kind", "key", "content");
  CHECK(!holds("key", "content"));
  setenv("HOME", "/nowhere/that/is", 1);
  CHECK(cache_folder() == "/nowhere/that/is/.cache/arkinfer");
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", before.c_str(), 1);
}
