// A tree of draft tokens that a session runs at once and then keeps one path of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ark {

constexpr size_t kMostDraftTokens = 64;  // Call.ancestors has a bit for each

struct DraftTree {
  std::vector<int32_t> parents;     // of each node; -1: it follows the session's last token
  std::vector<uint64_t> ancestors;  // bit j: node j lies on the path to this node, itself included
  std::vector<int32_t> depths;      // tokens between the session's end and the node
  int32_t deepest = 0;
  bool is_chain = false;  // every node follows the one before it

  // Raises ARK_INVALID_ARGUMENT for no nodes, more than `most`, or a parent that does not come
  // before its child.
  static DraftTree parse(const int32_t* parents, size_t n, size_t most);

  // Raises ARK_INVALID_ARGUMENT unless the nodes lead from a root down, each the child of the last.
  void check_path(const int32_t* path, size_t n) const;
};

}  // namespace ark
