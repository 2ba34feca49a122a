#include "manifest.h"

#include <algorithm>

#include "arkinfer.h"
#include "error.h"
#include "json.h"

namespace ark {
namespace {

constexpr int64_t kFormatVersion = 1;
constexpr int64_t kMost = int64_t{1} << 30;

void check_versions(const JsonView& root) {
  int64_t version = root.at("format_version").integer(0, kMost);
  if (version != kFormatVersion) {
    fail(ARK_BUNDLE_VERSION, "manifest.json: format version " + std::to_string(version),
         "version " + std::to_string(kFormatVersion),
         version > kFormatVersion ? "update arkinfer" : "compile the bundle again");
  }
  JsonView abi = root.at("runtime_abi");
  int64_t low = abi.at("minimum").integer(0, kMost);
  int64_t high = abi.at("maximum").integer(0, kMost);
  if (ARK_ABI_VERSION < low || ARK_ABI_VERSION > high) {
    fail(ARK_BUNDLE_VERSION,
         "manifest.json: runtime ABI " + std::to_string(low) + " to " + std::to_string(high),
         "a range with " + std::to_string(ARK_ABI_VERSION),
         ARK_ABI_VERSION < low ? "update arkinfer" : "compile the bundle again");
  }
}

bool plain_name(const std::string& name) {
  if (name.empty() || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return c != '/' && c != '\\' && c != ':' && c != '\0'; });
}

uint32_t parse_crc(const JsonView& view) {
  const std::string& text = view.string();
  bool good = text.size() == 10 && text.compare(0, 2, "0x") == 0 &&
              text.find_first_not_of("0123456789abcdefABCDEF", 2) == std::string::npos;
  if (!good) view.refuse(quote(text), "\"0x\" and eight hexadecimal digits");
  return static_cast<uint32_t>(std::stoul(text.substr(2), nullptr, 16));
}

ManifestFile parse_file(const JsonView& files, size_t index) {
  JsonView entry = files.member(index);
  const std::string& name = files.key(index);
  if (!plain_name(name)) files.refuse("the file name " + quote(name), "a name without a path");
  const std::string& sha = entry.at("sha256").string();
  if (sha.size() != 64 || sha.find_first_not_of("0123456789abcdef") != std::string::npos) {
    entry.at("sha256").refuse(quote(sha), "64 lower-case hexadecimal digits");
  }
  return {name, entry.at("bytes").integer(0, int64_t{1} << 50), parse_crc(entry.at("crc32c")), sha};
}

int32_t parse_kv(const JsonView& root) {
  if (!root.has("kv") || root.at("kv").is(Json::Type::null)) return ARK_KV_F16;
  const std::string& name = root.at("kv").string();
  if (name == "fp16") return ARK_KV_F16;
  if (name == "fp32") return ARK_KV_F32;
  if (name == "int8") return ARK_KV_I8;
  if (name == "int4") return ARK_KV_I4;
  root.at("kv").refuse(quote(name), "\"fp16\", \"fp32\", \"int8\" or \"int4\"");
}

}  // namespace

const ManifestFile* Manifest::file(const std::string& name) const {
  for (const ManifestFile& entry : files) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

Manifest parse_manifest(const char* text, size_t size) {
  Json json = Json::parse("manifest.json", text, size, size_t{64} << 20);
  JsonView root(json, "manifest.json");
  check_versions(root);
  Manifest manifest;
  JsonView model = root.at("model");
  manifest.backend = root.at("backend").string();
  manifest.vocab_size = static_cast<int32_t>(model.at("vocab_size").integer(1, kMost));
  manifest.layers = static_cast<int32_t>(model.at("num_layers").integer(1, 65536));
  manifest.kv_heads = static_cast<int32_t>(model.at("num_kv_heads").integer(1, 65536));
  manifest.context = static_cast<int32_t>(root.at("context").integer(1, kMost));
  manifest.chunk = static_cast<int32_t>(root.at("chunk").integer(1, 65536));
  manifest.kv_type = parse_kv(root);
  JsonView files = root.at("files");
  for (size_t i = 0; i < files.object_size(); i++) manifest.files.push_back(parse_file(files, i));
  return manifest;
}

}  // namespace ark
