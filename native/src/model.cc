#include "model.h"

#include <sys/stat.h>

#include <memory>
#include <utility>

#include "bind.h"
#include "crc32c.h"
#include "device/repack.h"
#include "error.h"
#include "sha256.h"
#include "thread_pool.h"

namespace ark {
namespace {

constexpr const char* kAgain = "copy or compile the bundle again";

MappedFile open_part(const std::string& folder, const std::string& name) {
  try {
    return MappedFile(folder + "/" + name);
  } catch (const Error& error) {
    if (error.status() != ARK_NOT_FOUND) throw;
    fail(ARK_DAMAGED_BUNDLE, quote(folder) + " holds no " + quote(name), "that file", kAgain);
  }
}

// Code is compared with the digest that identifies it, not with a checksum alone.
void check_sha256(const ManifestFile& entry, const MappedFile& file) {
  if (sha256_hex(file.data(), file.size()) == entry.sha256) return;
  fail(ARK_DAMAGED_BUNDLE, quote(entry.name) + " is not what manifest.json names by its SHA-256",
       "the same", kAgain);
}

MappedFile open_manifest(const std::string& folder) {
  struct stat status;
  if (stat(folder.c_str(), &status) != 0) {
    fail(ARK_NOT_FOUND, "no bundle at " + quote(folder), "a bundle folder", "check the path");
  }
  if (!S_ISDIR(status.st_mode)) {
    fail(ARK_INVALID_BUNDLE, quote(folder) + " is not a folder", "a bundle folder", "");
  }
  if (stat((folder + "/manifest.json").c_str(), &status) != 0) {
    fail(ARK_INVALID_BUNDLE, quote(folder) + " holds no manifest.json", "a bundle folder",
         "compile one with: arkinfer compile");
  }
  MappedFile manifest = open_part(folder, "manifest.json");
  MappedFile digest = open_part(folder, "DIGEST");
  std::string expected = sha256_hex(manifest.data(), manifest.size()) + "\n";
  if (std::string(digest.data() ? digest.data() : "", digest.size()) != expected) {
    fail(ARK_DAMAGED_BUNDLE, "manifest.json does not match DIGEST", "the SHA-256 in DIGEST",
         kAgain);
  }
  return manifest;
}

}  // namespace

MappedFile Model::open_listed(const std::string& folder, const ManifestFile& entry, bool check) {
  MappedFile file = open_part(folder, entry.name);
  if (file.size() != static_cast<uint64_t>(entry.bytes)) {
    fail(ARK_DAMAGED_BUNDLE, quote(entry.name) + " has " + std::to_string(file.size()) + " bytes",
         std::to_string(entry.bytes), kAgain);
  }
  if (!check) return file;
  file.prefetch();
  constexpr size_t kWorthThreads = size_t{4} << 20;
  ThreadPool pool(file.size() < kWorthThreads ? 1 : ThreadPool::available_cores());
  compare_checksum(entry, bundle_checksum(file.data(), file.size(), pool.parallel()));
  return file;
}

Model::Model(const std::string& path, int32_t checksum) : path_(path) {
  if (checksum < ARK_CHECK_BEFORE || checksum > ARK_CHECK_BESIDE) {
    fail(ARK_INVALID_ARGUMENT, "checksum " + std::to_string(checksum), "0, 1 or 2", "");
  }
  {
    MappedFile manifest = open_manifest(path);
    manifest_ = parse_manifest(manifest.data(), manifest.size());
    id_ = sha256_hex(manifest.data(), manifest.size());
  }
  MappedFile plan, compiled, host;
  for (const ManifestFile& entry : manifest_.files) {
    bool plans = entry.name == "plan.json" || entry.name == "launches.json";
    bool source = entry.name == "kernels.cl" || entry.name == "kernels.metal";
    bool kernels = source || entry.name == "modules.bin";
    bool code = kernels || entry.name == "kernels.so" || entry.name == "kernels.json";
    bool hosts = entry.name == "plan.cpu.json";
    bool small = plans || hosts || code || entry.name == "vocabulary.bin";
    bool beside = entry.name == "weights.bin" && checksum == ARK_CHECK_BESIDE;
    MappedFile file = open_listed(path, entry, small || (checksum != ARK_CHECK_SKIP && !beside));
    // Reading begins here, at once; what follows needs none of it.
    if (beside) check_ = std::make_unique<FileCheck>(file, entry);
    if (plans) plan = std::move(file);
    if (hosts) host = std::move(file);
    if (kernels) source_ = std::move(file);
    if (entry.name == "kernels.json") compiled = std::move(file);
    if (entry.name == "kernels.so") {
      check_sha256(entry, file);
      code_ = std::move(file);
    }
    if (entry.name == "weights.bin") weights_ = std::move(file);
    if (entry.name == "vocabulary.bin") vocabulary_ = Vocabulary(std::move(file));
  }
  if (manifest_.file("launches.json")) {
    read_launches(plan, host);
    return;
  }
  if (!manifest_.file("plan.json")) return;
  if (!manifest_.file("weights.bin")) {
    fail(ARK_INVALID_BUNDLE, "manifest.json: files lists plan.json without weights.bin", "both",
         "compile the bundle again");
  }
  plan_ = parse_plan(plan.data(), plan.size(),
                     {static_cast<int64_t>(weights_.size()), manifest_.vocab_size, manifest_.layers,
                      manifest_.kv_heads, manifest_.chunk});
  has_plan_ = true;
  weights_.prefetch();
  check_binding();
  if (manifest_.file("kernels.json")) read_compiled(compiled);
}

// A first binding without memory, so that a bad plan is refused here and not by a session. It
// leaves the bundle's own code alone, which a session may not want.
void Model::check_binding() const {
  SessionOptions options = resolve_options(*this, nullptr);
  options.kernels = ARK_KERNELS_BUILTIN;
  bind(*this, options, {});
}

void Model::read_launches(const MappedFile& file, const MappedFile& host) {
  bool modules = manifest_.file("modules.bin");
  int forms = modules;
  for (const char* name : {"kernels.cl", "kernels.metal"}) forms += manifest_.file(name) ? 1 : 0;
  if (!manifest_.file("weights.bin") || forms != 1) {
    fail(ARK_INVALID_BUNDLE, "manifest.json: files lists launches.json alone",
         "weights.bin and one of kernels.cl, kernels.metal and modules.bin beside it",
         "compile the bundle again");
  }
  const PlanLimits limits{static_cast<int64_t>(weights_.size()), manifest_.vocab_size,
                          manifest_.layers, manifest_.kv_heads, manifest_.chunk};
  launches_ = parse_launch_plan(file.data(), file.size(), limits);
  if (launches_.code.present != modules) {
    fail(ARK_INVALID_BUNDLE, "launches.json and manifest.json differ in whether there is code",
         "the same", "compile the bundle again");
  }
  check_modules(launches_.code, static_cast<int64_t>(source_.size()));
  has_launches_ = true;
  plan_.chunk = launches_.chunk;
  plan_.output_rows = launches_.output_rows;
  has_plan_ = true;
  weights_.prefetch();
  if (!manifest_.file("plan.cpu.json")) return;
  host_ = std::make_unique<HostPlan>(parse_host_plan(host.data(), host.size(), limits, launches_));
  plan_ = host_->plan;
  check_binding();
}

std::shared_ptr<const Region> Model::host_weights(ThreadPool* pool) const {
  std::lock_guard<std::mutex> lock(repacking_);
  std::shared_ptr<const Region> made = host_weights_.lock();
  if (!made) {
    made = std::make_shared<const Region>(repack(*host_, launches_, weights_, pool));
    host_weights_ = made;
  }
  return made;
}

void Model::read_compiled(const MappedFile& file) {
  if (!manifest_.file("kernels.so")) {
    fail(ARK_INVALID_BUNDLE, "manifest.json: files lists kernels.json alone",
         "kernels.so beside it", "compile the bundle again");
  }
  compiled_ = std::make_unique<CompiledPlan>(parse_compiled_plan(file.data(), file.size(), plan_));
}

const CompiledLibrary& Model::compiled_library() const {
  std::call_once(loading_,
                 [this] { library_ = std::make_unique<CompiledLibrary>(code_, compiled_->isa); });
  return *library_;
}

std::unique_ptr<Tuning> Model::tuning() const {
  const std::string name = path_ + "/tuning.json";
  struct stat status;
  if (!compiled_ || stat(name.c_str(), &status) != 0) return nullptr;
  MappedFile file(name);
  auto tuning = std::make_unique<Tuning>(parse_tuning(file.data(), file.size(), *compiled_));
  bool fits = tuning->bundle == id_ && tuning->cpu == cpu_name();
  return fits ? std::move(tuning) : nullptr;
}

const Plan& Model::plan() const {
  if (!has_plan_) {
    fail(ARK_INVALID_ARGUMENT,
         "this bundle was compiled for the backend " + quote(manifest_.backend) +
             ", which has no native plan",
         "a bundle of the cpu backend", "compile with: arkinfer compile --target cpu");
  }
  return plan_;
}

}  // namespace ark
