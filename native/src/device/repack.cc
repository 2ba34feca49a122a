#include "device/repack.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "device/matrix_rows.h"

namespace ark {
namespace {

constexpr int64_t kPanel = 16;
constexpr int64_t kLineWords = 16;
constexpr int64_t kSlice = int64_t{32} << 20;  // of the device's codes, between giving up pages

// A word holds as many codes of a row, in order, as four bytes of a panel do in another order.
uint32_t same(uint32_t word) { return word; }

// Codes less 128.
uint32_t as_signed(uint32_t word) { return word ^ 0x80808080u; }

// Four nibbles in the low half of a word, one to a byte.
uint32_t spread(uint32_t nibbles) {
  nibbles = (nibbles | nibbles << 8) & 0x00FF00FFu;
  return (nibbles | nibbles << 4) & 0x0F0F0F0Fu;
}

// Byte b gets code b in its low, and code 4 + b in its high nibble.
uint32_t as_nibbles(uint32_t word) { return spread(word & 0xFFFF) | spread(word >> 16) << 4; }

// Byte b gets codes b, 4 + b, 8 + b and 12 + b: a 4 x 4 table of pairs of bits, transposed.
uint32_t as_pairs(uint32_t word) {
  uint32_t moved = (word ^ word >> 6) & 0x00CC00CCu;
  word ^= moved ^ moved << 6;
  moved = (word ^ word >> 12) & 0x0000F0F0u;
  return word ^ moved ^ moved << 12;
}

// The rows of one panel; behind the last row of a matrix there are none.
struct PanelRows {
  MatrixRow rows[kPanel];
  int64_t count;
};

// A cache line of each row at a time: rows may lie a power of two apart, where the lines of all of
// them do not stay in a cache.
template <uint32_t (*Convert)(uint32_t)>
void pack_words(const PanelRows& panel, int64_t words, char* to) {
  for (int64_t first = 0; first < words; first += kLineWords) {
    const int64_t count = std::min(kLineWords, words - first);
    for (int64_t lane = 0; lane < panel.count; lane++) {
      const char* from = panel.rows[lane].codes + first * 4;
      for (int64_t word = 0; word < count; word++) {
        uint32_t packed = Convert(word_at(from, word));
        std::memcpy(to + ((first + word) * kPanel + lane) * 4, &packed, 4);
      }
    }
  }
}

// Two 16-bit numbers of a word lie in two rows of lanes.
void pack_halves(const PanelRows& panel, int64_t words, char* to) {
  for (int64_t word = 0; word < words; word++) {
    for (int64_t lane = 0; lane < panel.count; lane++) {
      uint32_t both = word_at(panel.rows[lane].codes, word);
      auto first = static_cast<uint16_t>(both);
      auto second = static_cast<uint16_t>(both >> 16);
      std::memcpy(to + (2 * word * kPanel + lane) * 2, &first, 2);
      std::memcpy(to + ((2 * word + 1) * kPanel + lane) * 2, &second, 2);
    }
  }
}

void pack_codes(const PanelRows& panel, DType dtype, int64_t words, char* to) {
  switch (dtype) {
    case DType::u2:
      return pack_words<as_pairs>(panel, words, to);
    case DType::u4:
      return pack_words<as_nibbles>(panel, words, to);
    case DType::i8:
      return pack_words<as_signed>(panel, words, to);
    case DType::f32:
      return pack_words<same>(panel, words, to);
    default:
      return pack_halves(panel, words, to);
  }
}

// A zero point as a code is; 0 for what is none.
uint8_t zero_point(const MatrixGroup& group) {
  float value = group.second();
  return value >= 0 && value <= 255 ? static_cast<uint8_t>(value) : 0;
}

// Scales, and zero points or minimums, [groups][16]. Padding of signed zero points is that of codes
// of zero.
void pack_groups(const PanelRows& panel, const LaunchMatrix& matrix, char* scales, char* offsets,
                 DType offset_type) {
  const int64_t groups = matrix.inputs / matrix.group;
  const size_t size = matrix.scale_words == 1 ? 2 : 4;  // little-endian: low bytes first
  const uint8_t flip = offset_type == DType::i8 ? 0x80 : 0;
  const bool minimum = matrix.values == LaunchMatrix::Values::minimum;
  for (int64_t group = 0; group < groups; group++) {
    for (int64_t lane = 0; lane < kPanel; lane++) {
      const size_t place = static_cast<size_t>(group * kPanel + lane);
      if (lane >= panel.count) {
        if (offsets && !minimum) offsets[place] = static_cast<char>(flip);
        continue;
      }
      MatrixGroup one = panel.rows[lane].group(matrix, group);
      std::memcpy(scales + place * size, &one.scale_bits, size);
      if (!offsets) continue;
      if (minimum) {
        std::memcpy(offsets + place * size, &one.second_bits, size);
      } else {
        offsets[place] = static_cast<char>(zero_point(one) ^ flip);
      }
    }
  }
}

struct Work {
  const HostPlan& host;
  const LaunchPlan& launches;
  const char* from;
  char* to;
  const HostMatrix* matrix;
  int64_t first;  // panel

  // Where a panel of a weight of the CPU's plan lies; null for none.
  char* place(size_t weight, int64_t panel) const {
    if (weight == HostMatrix::kNone) return nullptr;
    const PlanWeight& entry = host.plan.weights[weight];
    return to + entry.offset + panel * (kPanel * entry.shape[1] * dtype_bits(entry.dtype) / 8);
  }
};

void pack_panel(void* user, int64_t index, int32_t) {
  const Work& work = *static_cast<const Work*>(user);
  const HostMatrix& host = *work.matrix;
  const LaunchMatrix& matrix = host.matrix;
  const int64_t panel = work.first + index;
  PanelRows rows{};
  rows.count = std::min(kPanel, matrix.outputs() - panel * kPanel);
  for (int64_t lane = 0; lane < rows.count; lane++) {
    rows.rows[lane] = matrix_row(matrix, work.launches, work.from, panel * kPanel + lane);
  }
  pack_codes(rows, work.host.plan.weights[host.codes].dtype, matrix.inputs * matrix.bits / 32,
             work.place(host.codes, panel));
  if (!matrix.has_scales()) return;
  DType type =
      host.offsets == HostMatrix::kNone ? DType::u8 : work.host.plan.weights[host.offsets].dtype;
  pack_groups(rows, matrix, work.place(host.scales, panel), work.place(host.offsets, panel), type);
}

// Gives up the pages from one address to another; those at the ends are read again if need be.
void release(const MappedFile& weights, const char* from, const char* to) {
  auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto first = static_cast<size_t>(from - weights.data()) / page * page;
  weights.release(first, static_cast<size_t>(to - weights.data()) - first);
}

void pack_matrix(Work* work, const MappedFile& weights, ThreadPool* pool) {
  const LaunchMatrix& matrix = work->matrix->matrix;
  const int64_t row_bytes = matrix.inputs * matrix.bits / 8;
  const int64_t panels = (matrix.outputs() + kPanel - 1) / kPanel;
  const int64_t slice = std::max<int64_t>(kSlice / (kPanel * row_bytes), 1);
  for (work->first = 0; work->first < panels; work->first += slice) {
    const int64_t end = std::min(panels, work->first + slice);
    pool->run(end - work->first, pack_panel, work);
    // A slice may lie in several parts, one after the other in the file.
    auto codes = [&](int64_t row) {
      return matrix_row(matrix, work->launches, work->from, row).codes;
    };
    const int64_t last = std::min(end * kPanel, matrix.outputs()) - 1;
    const char* first = codes(work->first * kPanel);
    const char* behind = codes(last) + row_bytes;
    if (behind > first) release(weights, first, behind);
  }
  if (!matrix.has_scales()) return;
  for (const LaunchMatrix::Part& part : matrix.parts) {
    const LaunchWeight& range = work->launches.weights[part.scales];
    const char* first = work->from + range.offset;
    release(weights, first, first + range.bytes);
  }
}

}  // namespace

Region repack(const HostPlan& host, const LaunchPlan& launches, const MappedFile& weights,
              ThreadPool* pool) {
  Region region(static_cast<size_t>(host.bytes), "CPU's weights", true);
  Work work{host, launches, weights.data(), region.data(), nullptr, 0};
  for (const HostMatrix& matrix : host.matrices) {
    work.matrix = &matrix;
    pack_matrix(&work, weights, pool);
  }
  for (const HostVector& vector : host.vectors) {
    const PlanWeight& to = host.plan.weights[vector.to];
    std::memcpy(region.data() + to.offset, weights.data() + launches.weights[vector.from].offset,
                static_cast<size_t>(to.bytes));
  }
  return region;
}

}  // namespace ark
