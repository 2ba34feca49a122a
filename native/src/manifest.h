// manifest.json (docs/bundle.md), as far as the runtime needs it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ark {

struct ManifestFile {
  std::string name;
  int64_t bytes;
  uint32_t crc32c;
  std::string sha256;
};

struct Manifest {
  std::string backend;
  int32_t vocab_size;
  int32_t layers;
  int32_t kv_heads;
  int32_t context;
  int32_t chunk;
  int32_t kv_type;  // ark_kv_type that sessions use unless told otherwise
  std::vector<ManifestFile> files;

  const ManifestFile* file(const std::string& name) const;  // nullptr when not listed
};

// Raises ARK_INVALID_BUNDLE, or ARK_BUNDLE_VERSION for another format version or ABI.
Manifest parse_manifest(const char* text, size_t size);

}  // namespace ark
