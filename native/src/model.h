// A bundle folder, checked and mapped; shared by its sessions and never changed.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "arkinfer.h"
#include "compiled_library.h"
#include "compiled_plan.h"
#include "device/host_plan.h"
#include "device/launch_plan.h"
#include "file_check.h"
#include "manifest.h"
#include "mapped_file.h"
#include "memory.h"
#include "plan.h"
#include "thread_pool.h"
#include "tuning.h"
#include "vocabulary.h"

namespace ark {

class Model {
 public:
  // Raises ARK_NOT_FOUND, ARK_DAMAGED_BUNDLE, ARK_INVALID_BUNDLE or ARK_BUNDLE_VERSION.
  // ARK_CHECK_SKIP leaves out the checksums of everything but plans, kernels and
  // vocabulary.bin.
  explicit Model(const std::string& path, int32_t checksum = ARK_CHECK_BEFORE);

  const Manifest& manifest() const { return manifest_; }
  // The SHA-256 of the manifest, which names the digests of all files.
  const std::string& id() const { return id_; }
  const Vocabulary& vocabulary() const { return vocabulary_; }
  // False for a bundle of a backend whose executor is not native: it has no plan.
  bool has_plan() const { return has_plan_; }
  // Raises ARK_INVALID_ARGUMENT when there is none.
  const Plan& plan() const;
  // The plan of a bundle for a device; null for the CPU's. plan() is then the CPU's too, where
  // there is a host_plan(), and else holds limits alone.
  const LaunchPlan* launches() const { return has_launches_ ? &launches_ : nullptr; }
  // What the CPU makes of a device's weights; null without launches or without a plan for the CPU.
  const HostPlan* host_plan() const { return host_.get(); }
  // Those weights, repacked by the first session that asks and kept while one has them.
  std::shared_ptr<const Region> host_weights(ThreadPool* pool) const;
  // The kernels of a bundle for a device, as source.
  const MappedFile& source() const { return source_; }
  // The steps for which the bundle brings kernels of its own; null without such.
  const CompiledPlan* compiled() const { return compiled_.get(); }
  // Their code, loaded by the first call. Raises ARK_INVALID_BUNDLE when it is not for this CPU.
  const CompiledLibrary& compiled_library() const;
  // What was measured of them on a CPU of this name, read anew; null where nothing was. Raises
  // ARK_INVALID_BUNDLE for a table that breaks a rule.
  std::unique_ptr<Tuning> tuning() const;
  const char* weights() const { return weights_.data(); }
  size_t weights_bytes() const { return weights_.size(); }
  // With ARK_CHECK_BESIDE: waits until the weights are checked. Raises ARK_DAMAGED_BUNDLE.
  void wait_for_check() const {
    if (check_) check_->wait();
  }

 private:
  MappedFile open_listed(const std::string& folder, const ManifestFile& entry, bool check);
  void read_launches(const MappedFile& file, const MappedFile& host);
  void read_compiled(const MappedFile& file);
  void check_binding() const;

  std::string path_;
  Manifest manifest_;
  std::string id_;
  MappedFile weights_;
  std::unique_ptr<FileCheck> check_;
  Vocabulary vocabulary_;
  Plan plan_{};
  bool has_plan_ = false;
  MappedFile source_;
  LaunchPlan launches_;
  bool has_launches_ = false;
  std::unique_ptr<HostPlan> host_;
  mutable std::mutex repacking_;
  mutable std::weak_ptr<const Region> host_weights_;
  std::unique_ptr<const CompiledPlan> compiled_;
  MappedFile code_;
  mutable std::once_flag loading_;
  mutable std::unique_ptr<const CompiledLibrary> library_;
};

}  // namespace ark
