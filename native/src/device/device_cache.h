// What was found out about a device once, kept in the user's cache folder: built programs, and
// verdicts of self-tests. A file that is not whole, not the user's own or not of the key counts as
// absent, and so does a folder that cannot be written.
#pragma once

#include <string>

namespace ark {

// $XDG_CACHE_HOME/arkinfer, else $HOME/.cache/arkinfer; empty where neither is an absolute path.
std::string cache_folder();
// False where there is no sound file of this kind and key. kind is part of the file's name.
bool read_cached(const std::string& kind, const std::string& key, std::string* content);
// Writes beside the place and renames, so that readers see a whole file or none.
void write_cached(const std::string& kind, const std::string& key, const std::string& content);

}  // namespace ark
