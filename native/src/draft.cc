#include "draft.h"

#include <algorithm>
#include <string>

#include "error.h"

namespace ark {

DraftTree DraftTree::parse(const int32_t* parents, size_t n, size_t most) {
  if (n == 0 || n > most) {
    fail(ARK_INVALID_ARGUMENT, "a draft tree of " + std::to_string(n) + " tokens",
         "1 to " + std::to_string(most), "");
  }
  DraftTree tree;
  tree.parents.assign(parents, parents + n);
  tree.is_chain = true;
  for (size_t i = 0; i < n; i++) {
    int32_t parent = parents[i];
    auto index = static_cast<int32_t>(i);
    if (parent < -1 || parent >= index) {
      fail(ARK_INVALID_ARGUMENT,
           "draft token " + std::to_string(i) + " has the parent " + std::to_string(parent),
           "-1 or the index of a token before it", "");
    }
    auto above = static_cast<size_t>(parent);
    uint64_t seen = parent < 0 ? 0 : tree.ancestors[above];
    tree.ancestors.push_back(seen | uint64_t{1} << i);
    tree.depths.push_back(parent < 0 ? 0 : tree.depths[above] + 1);
    tree.deepest = std::max(tree.deepest, tree.depths.back());
    tree.is_chain = tree.is_chain && parent == index - 1;
  }
  return tree;
}

void DraftTree::check_path(const int32_t* path, size_t n) const {
  int32_t last = -1;
  for (size_t i = 0; i < n; i++) {
    bool inside = path[i] >= 0 && static_cast<size_t>(path[i]) < parents.size();
    if (!inside || parents[static_cast<size_t>(path[i])] != last) {
      fail(ARK_INVALID_ARGUMENT,
           "the path's element " + std::to_string(i) + " is " + std::to_string(path[i]),
           last < 0 ? "a token of the draft tree whose parent is -1"
                    : "a child of token " + std::to_string(last),
           "");
    }
    last = path[i];
  }
}

}  // namespace ark
