// What a step reads and writes, on the host: made up before the step, compared after it.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "device/launch_plan.h"
#include "device/matrix_rows.h"
#include "kernel.h"

namespace ark {

// What the self-test needs of a run.
class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // Copies the first bytes of a slot or a cache.
  virtual void write(LaunchArgument::Kind kind, size_t index, const std::vector<char>& bytes) = 0;
  virtual void read(LaunchArgument::Kind kind, size_t index, std::vector<char>* bytes) = 0;
  // Launches what the step has for these tokens, and waits.
  virtual void run(const LaunchStep& step, const LaunchScalars& scalars) = 0;
};

// The slots and caches of one step. Slots hold rows of 4-byte columns; caches lie as the CPU's.
class StepImages {
 public:
  // Random contents. Raises ARK_INVALID_BUNDLE for operands that do not lie in their memory.
  StepImages(const LaunchPlan& plan, const LaunchStep& step, const LaunchScalars& scalars,
             const char* weights, std::mt19937* random);

  void upload(StepRunner* runner) const;
  // What the device has after the step, in a copy of these images.
  StepImages download(StepRunner* runner) const;
  // The largest difference from what is expected, as a part of each operand's largest number.
  double difference(const StepImages& expected) const;

  const LaunchStep& step() const { return step_; }
  const LaunchScalars& scalars() const { return scalars_; }
  const char* weight(size_t index) const { return weights_ + plan_.weights[index].offset; }
  MatrixRow matrix_row(const LaunchMatrix& matrix, int64_t row) const {
    return ark::matrix_row(matrix, plan_, weights_, row);
  }
  // Row of a buffer operand.
  float* row(const LaunchOperand& operand, int64_t row);
  const float* row(const LaunchOperand& operand, int64_t row) const;
  int32_t* ids(const LaunchOperand& operand, int64_t row);
  const int32_t* ids(const LaunchOperand& operand, int64_t row) const;
  // As a CPU kernel takes it.
  Operand operand(const LaunchOperand& operand);

 private:
  struct Slot {
    int64_t stride = 0;
    std::vector<char> bytes;
  };
  struct Cache {
    int64_t blocks = 0;
    std::vector<char> bytes;
  };

  void add_slot(const LaunchOperand& operand, std::mt19937* random);
  void add_cache(const LaunchOperand& operand, std::mt19937* random);
  double buffer_difference(const StepImages& expected, const LaunchOperand& operand) const;
  double cache_difference(const StepImages& expected, size_t index) const;
  void choose_blocks(const LaunchOperand& operand);
  std::vector<char> reorder(const Cache& cache, size_t index, bool to_device) const;

  const LaunchPlan& plan_;
  const LaunchStep& step_;
  LaunchScalars scalars_;
  const char* weights_;
  std::map<size_t, Slot> slots_;
  std::map<size_t, Cache> caches_;
};

}  // namespace ark
