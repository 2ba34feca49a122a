// Draft trees, on the tiny model whose results are exact.
#include <cstring>
#include <vector>

#include "check.h"
#include "draft.h"
#include "fixture.h"

using namespace ark;
using namespace ark::testing;

namespace {

std::vector<int32_t> prompt() { return {3, 1, 4, 1, 5, 9, 2, 6, 5, 3}; }

struct Tree {
  std::vector<int32_t> tokens;
  std::vector<int32_t> parents;
};

// Two roots; the second has two children, of which the second has one.
const Tree kTree{{7, 8, 9, 10}, {-1, -1, 1, 1}};

std::vector<float> verify(Session* session, const Tree& tree) {
  std::vector<float> logits(tree.tokens.size() * kVocab);
  session->verify_tree(tree.tokens.data(), tree.parents.data(), tree.tokens.size(), logits.data());
  return logits;
}

std::vector<float> row(const std::vector<float>& logits, size_t index) {
  auto start = logits.begin() + static_cast<std::ptrdiff_t>(index * kVocab);
  return {start, start + kVocab};
}

std::vector<int32_t> with(std::vector<int32_t> tokens, const std::vector<int32_t>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

std::vector<float> append(Session* session, const std::vector<int32_t>& tokens) {
  std::vector<float> logits(kVocab);
  session->append(tokens.data(), tokens.size(), false, logits.data());
  return logits;
}

void accept(Session* session, const std::vector<int32_t>& path) {
  session->accept(path.data(), path.size());
}

}  // namespace

TEST(draft_tree_knows_paths) {
  const std::vector<int32_t> parents{-1, -1, 1, 0, 2};
  DraftTree tree = DraftTree::parse(parents.data(), parents.size(), 64);
  CHECK((tree.ancestors == std::vector<uint64_t>{1, 2, 6, 9, 22}));
  CHECK((tree.depths == std::vector<int32_t>{0, 0, 1, 1, 2}));
  CHECK(tree.deepest == 2 && !tree.is_chain);
  const std::vector<int32_t> chain{-1, 0, 1};
  CHECK(DraftTree::parse(chain.data(), 3, 64).is_chain);
  for (std::vector<int32_t> path : {std::vector<int32_t>{1, 2, 4}, {0, 3}, {0}, {}}) {
    tree.check_path(path.data(), path.size());
  }
  for (std::vector<int32_t> path : {std::vector<int32_t>{2}, {1, 3}, {1, 4}, {0, 0}, {5}, {-1}}) {
    CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("the path's element"),
                tree.check_path(path.data(), path.size()));
  }
}

TEST(draft_tree_refuses_what_is_none) {
  for (std::vector<int32_t> bad : {std::vector<int32_t>{0}, {1, -1}, {-1, -2}, {-1, 2, 0}}) {
    CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("has the parent", "a token before it"),
                DraftTree::parse(bad.data(), bad.size(), 64));
  }
  std::vector<int32_t> many(65, -1);
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("65 tokens", "1 to 64"),
              DraftTree::parse(many.data(), 65, 64));
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("0 tokens"), DraftTree::parse(nullptr, 0, 64));
}

TEST(session_verifies_a_tree) {
  Session session(tiny_model(), tiny_options());
  append(&session, prompt());
  std::vector<float> logits = verify(&session, kTree);
  CHECK(session.length() == 10);
  CHECK(row(logits, 0) == expected_logits(with(prompt(), {7})));
  CHECK(row(logits, 1) == expected_logits(with(prompt(), {8})));
  CHECK(row(logits, 2) == expected_logits(with(prompt(), {8, 9})));
  CHECK(row(logits, 3) == expected_logits(with(prompt(), {8, 10})));
}

TEST(session_accepts_a_path) {
  const std::vector<std::vector<int32_t>> paths{{}, {0}, {1}, {1, 2}, {1, 3}};
  const std::vector<std::vector<int32_t>> kept{{}, {7}, {8}, {8, 9}, {8, 10}};
  for (size_t i = 0; i < paths.size(); i++) {
    Session session(tiny_model(), tiny_options());
    append(&session, prompt());
    verify(&session, kTree);
    accept(&session, paths[i]);
    std::vector<int32_t> tokens = with(prompt(), kept[i]);
    CHECK(session.length() == static_cast<int64_t>(tokens.size()));
    tokens.push_back(11);
    CHECK(append(&session, {11}) == expected_logits(tokens));
    CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("no draft tree"), accept(&session, {}));
  }
}

TEST(session_accepts_part_of_a_chain) {
  const Tree chain{{7, 8, 9}, {-1, 0, 1}};
  Session session(tiny_model(), tiny_options());
  append(&session, prompt());
  CHECK(row(verify(&session, chain), 2) == expected_logits(with(prompt(), {7, 8, 9})));
  CHECK(session.length() == 10);
  accept(&session, {0, 1});
  CHECK(append(&session, {11}) == expected_logits(with(prompt(), {7, 8, 11})));
}

TEST(session_shows_the_blocks_of_the_accepted_token) {
  Session session(tiny_model(), tiny_options());
  append(&session, {1, 2});
  verify(&session, {{7, 8, 9, 10}, {-1, 0, 1, 0}});  // positions 2, 3, 4 and 3
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("no token"), session.selected_blocks(0, 0));
  accept(&session, {0, 1, 2});
  Session plain(tiny_model(), tiny_options());
  append(&plain, {1, 2, 7, 8, 9});
  CHECK(session.selected_blocks(0, 0) == plain.selected_blocks(0, 0));
}

TEST(session_drops_a_tree) {
  Session session(tiny_model(), tiny_options(14));
  append(&session, prompt());
  verify(&session, kTree);
  session.rollback(10);
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("no draft tree"), accept(&session, {0}));
  verify(&session, kTree);
  CHECK(append(&session, {5}) == expected_logits(with(prompt(), {5})));
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("no draft tree"), accept(&session, {0}));
  CHECK_ERROR(ARK_CONTEXT_OVERFLOW, PARTS("4 tokens after 11"), verify(&session, kTree));
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("token id 32"), verify(&session, {{32}, {-1}}));
  // The tiny model's chunk is four tokens.
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("5 tokens", "1 to 4"),
              verify(&session, {{1, 2, 3, 4, 5}, {-1, -1, -1, -1, -1}}));
}

TEST(session_leaves_its_last_tree_after_a_refusal) {
  Session session(tiny_model(), tiny_options());
  append(&session, prompt());
  verify(&session, kTree);
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("parent 3"), verify(&session, {{1}, {3}}));
  CHECK_ERROR(ARK_INVALID_ARGUMENT, PARTS("a child of token 1"), accept(&session, {1, 0}));
  accept(&session, {1, 3});
  CHECK(append(&session, {11}) == expected_logits(with(prompt(), {8, 10, 11})));
}
