// Decode and verify: a few rows, and every weight is read from memory once.
#pragma once

#include "product.h"
#include "tiles_float.h"
#include "tiles_int8.h"
#include "tiles_u2.h"

ARK_KERNEL_BEGIN

constexpr int64_t kLeastBytes = 64 << 10;  // weights per item of parallel work
constexpr int64_t kFewRows = 16;  // up to here weights are read once, or once per kRows rows

// Adds inputs [first, last) of R rows and one panel to totals.
template <int R>
inline void tile(const Product& p, int64_t row, int64_t panel, int64_t first, int64_t last,
                 float* totals, int64_t stride) {
  const Weights& w = p.w;
  if (w.type == DType::f32) {
    tile_float<float, R, 1>(w, p.a, row, panel, first, last, totals, stride);
  } else if (w.type == DType::f16) {
    tile_float<Half, R, 1>(w, p.a, row, panel, first, last, totals, stride);
  } else if (w.type == DType::bf16) {
    tile_float<BFloat, R, 1>(w, p.a, row, panel, first, last, totals, stride);
  } else {
    first /= w.x_group;
    last /= w.x_group;
    if (w.type == DType::u2) {
      if (p.a.codes) {
        tile_u2<R>(w, p.a, row, panel, first, last, totals, stride);
      } else {
        tile_u2_float<R, 1>(w, p.a, row, panel, first, last, totals, stride);
      }
    } else if (!p.a.codes) {
      tile_codes<R, 1>(w, p.a, row, panel, first, last, totals, stride);
    } else if (w.type == DType::u4) {
      tile_int8<DotU4, R>(w, p.a, row, panel, first, last, totals, stride);
    } else {
      tile_int8<DotI8, R>(w, p.a, row, panel, first, last, totals, stride);
    }
  }
}

// One row and two panels: with fp32 activations one panel alone would wait for its own sums.
inline void tile_pair(const Product& p, int64_t panel, float* totals) {
  const Weights& w = p.w;
  if (w.type == DType::f32) {
    tile_float<float, 1, 2>(w, p.a, 0, panel, 0, w.inputs, totals, 0);
  } else if (w.type == DType::f16) {
    tile_float<Half, 1, 2>(w, p.a, 0, panel, 0, w.inputs, totals, 0);
  } else if (w.type == DType::bf16) {
    tile_float<BFloat, 1, 2>(w, p.a, 0, panel, 0, w.inputs, totals, 0);
  } else if (w.type == DType::u2) {
    tile_u2_float<1, 2>(w, p.a, 0, panel, 0, w.x_groups, totals, 0);
  } else {
    tile_codes<1, 2>(w, p.a, 0, panel, 0, w.groups, totals, 0);
  }
}

inline void tile_rows(const Product& p, int64_t row, int64_t rows, int64_t panel, int64_t first,
                      int64_t last, float* totals, int64_t stride) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    tile<kRows>(p, row + r, panel, first, last, totals + r * stride, stride);
  }
  if (kRows > 4 && r + 4 <= rows) {
    tile<4>(p, row + r, panel, first, last, totals + r * stride, stride);
    r += 4;
  }
  if (kRows > 2 && r + 2 <= rows) {
    tile<2>(p, row + r, panel, first, last, totals + r * stride, stride);
    r += 2;
  }
  if (r < rows) tile<1>(p, row + r, panel, first, last, totals + r * stride, stride);
}

inline void multiply_place(const Product& p, int64_t place) {
  float totals[kFewRows * kLanes];
  for (int64_t r = 0; r < p.rows; r++) store(totals + r * kLanes, zero());
  tile_rows(p, 0, p.rows, panel_at(p.w, place), 0, p.w.inputs, totals, kLanes);
  for (int64_t r = 0; r < p.rows; r++) write_outputs(p, r, place, totals + r * kLanes);
}

// Loops prefetch what lies ahead of them: this fetches what nothing lies ahead of.
ARK_INLINE void prefetch_start(const Product& p, int64_t place) {
  const char* start = panel(p.w, panel_at(p.w, place));
  for (int64_t i = 0; i < kPrefetchBytes; i += 64) prefetch(start + i);
}

inline void run_few_rows(void* user, int64_t index, int32_t) {
  const Product& p = *static_cast<const Product*>(user);
  int64_t place = p.bounds[index];
  int64_t end = p.bounds[index + 1];
  prefetch_start(p, place);
  if (p.rows == 1 && !p.a.codes) {
    for (; place + 2 <= end; place += 2) {
      float totals[2 * kLanes] = {};
      tile_pair(p, panel_at(p.w, place), totals);
      for (int i = 0; i < 2; i++) write_outputs(p, 0, place + i, totals + i * kLanes);
    }
  }
  // All gates of an item before what they gate: each is a stream that prefetches run ahead in.
  int step = p.w.gated ? 2 : 1;
  for (int i = 0; i < step; i++) {
    for (int64_t at = place + i; at < end; at += step) multiply_place(p, at);
  }
}

// Cuts the panels into items of parallel work, large ones first, so that a thread walks one long
// stream and no other waits long for the last: each takes three quarters of its share of what is
// left. Gives the number of items.
inline int64_t cut_panels(const Call& call, Product* p) {
  int64_t least = larger(1, kLeastBytes / panel_bytes(p->w));
  if (p->w.gated) least = round_up(least, 2);
  int64_t items = 0;
  for (int64_t done = 0; done < p->panels; items++) {
    int64_t left = p->panels - done;
    int64_t share = larger(least, left * 3 / (4 * call.parallel.threads) / least * least);
    p->bounds[items] = done;
    done += items + 1 == kMostItems ? left : smaller(share, left);
  }
  p->bounds[items] = p->panels;
  return items;
}

inline void multiply_few_rows(const Call& call, Product* p) {
  prepare_rows(call, p);
  run_parallel(call, cut_panels(call, p), run_few_rows, p);
}

ARK_KERNEL_END
