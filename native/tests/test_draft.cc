// Draft trees, on the tiny model whose results are exact.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "arkinfer.h"
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

// What an app may get wrong: every refusal names it, and the session goes on as if it had not been.
TEST(abi_refuses_bad_drafts_and_fills) {
  TemporaryBundle bundle;
  bundle.write(Files());
  ark_model* model = nullptr;
  ark_session* session = nullptr;
  ark_session_options options{
      sizeof(options),   16,           1, ARK_KV_F32, ARK_ACTIVATIONS_F32, "scalar",
      ARK_KERNELS_TUNED, ARK_ON_FASTER};
  CHECK(ark_model_load(bundle.path().c_str(), nullptr, &model) == ARK_OK);
  CHECK(ark_session_create(model, &options, &session) == ARK_OK);
  const std::vector<int32_t> tokens = prompt();
  std::vector<float> logits(4 * kVocab);
  auto refused = [&](ark_status status, ark_status expected, const char* part) {
    CHECK(status == expected);
    CHECK(std::string(ark_last_error()).find(part) != std::string::npos);
  };
  auto verify = [&](std::vector<int32_t> ids, std::vector<int32_t> parents) {
    return ark_session_verify_tree(session, ids.data(), parents.data(), parents.size(),
                                   logits.data());
  };
  auto accept = [&](std::vector<int32_t> path) {
    return ark_session_accept(session, path.data(), path.size());
  };

  refused(ark_session_fill_random(nullptr, 4, 0), ARK_INVALID_ARGUMENT, "no session");
  refused(ark_session_fill_random(session, 17, 0), ARK_CONTEXT_OVERFLOW, "at most 16");
  refused(ark_session_fill_random(session, SIZE_MAX, 0), ARK_CONTEXT_OVERFLOW, "at most 16");
  refused(accept({0}), ARK_INVALID_ARGUMENT, "no draft tree");
  CHECK(ark_session_append(session, tokens.data(), tokens.size(), 0, nullptr) == ARK_OK);
  refused(ark_session_fill_random(session, 4, 0), ARK_INVALID_ARGUMENT, "10 tokens");

  const int32_t one = 1, root = -1;
  float* out = logits.data();
  refused(ark_session_verify_tree(nullptr, &one, &root, 1, out), ARK_INVALID_ARGUMENT, "no ses");
  refused(ark_session_verify_tree(session, nullptr, &root, 1, out), ARK_INVALID_ARGUMENT, "no");
  refused(ark_session_verify_tree(session, &one, nullptr, 1, out), ARK_INVALID_ARGUMENT, "no");
  refused(ark_session_verify_tree(session, &one, &root, 1, nullptr), ARK_INVALID_ARGUMENT, "no");
  refused(ark_session_verify_tree(session, nullptr, nullptr, 0, out), ARK_INVALID_ARGUMENT, "0 to");
  refused(ark_session_verify_tree(session, &one, &root, SIZE_MAX, out), ARK_INVALID_ARGUMENT,
          "1 to 4");
  for (int32_t bad : {0, 1, -2, INT32_MIN, INT32_MAX}) {
    refused(verify({7}, {bad}), ARK_INVALID_ARGUMENT, "parent");
  }
  for (int32_t bad : {-1, kVocab, INT32_MIN, INT32_MAX}) {
    refused(verify({bad}, {-1}), ARK_INVALID_ARGUMENT, "token id");
  }

  CHECK(verify(kTree.tokens, kTree.parents) == ARK_OK);
  refused(ark_session_accept(nullptr, &one, 1), ARK_INVALID_ARGUMENT, "no session");
  refused(ark_session_accept(session, nullptr, 1), ARK_INVALID_ARGUMENT, "no path");
  for (int32_t bad : {2, 4, -1, INT32_MIN, INT32_MAX}) {
    refused(accept({bad}), ARK_INVALID_ARGUMENT, "path");
    refused(accept({1, 3, bad}), ARK_INVALID_ARGUMENT, "a child of token 3");
  }
  refused(accept({1, 1}), ARK_INVALID_ARGUMENT, "a child of token 1");
  CHECK(accept({1, 3}) == ARK_OK && ark_session_length(session) == 12);
  refused(accept({1}), ARK_INVALID_ARGUMENT, "no draft tree");
  const int32_t last = 11;
  CHECK(ark_session_append(session, &last, 1, 0, out) == ARK_OK);
  CHECK(row(logits, 0) == expected_logits(with(tokens, {8, 10, 11})));
  refused(verify(kTree.tokens, kTree.parents), ARK_CONTEXT_OVERFLOW, "4 tokens after 13");
  ark_session_free(session);
  ark_model_free(model);
}

TEST(abi_fills_what_the_context_holds) {
  TemporaryBundle bundle;
  bundle.write(Files());
  ark_model* model = nullptr;
  ark_session* session = nullptr;
  ark_session_options options{
      sizeof(options),   16,           1, ARK_KV_F32, ARK_ACTIVATIONS_F32, "scalar",
      ARK_KERNELS_TUNED, ARK_ON_FASTER};
  CHECK(ark_model_load(bundle.path().c_str(), nullptr, &model) == ARK_OK);
  CHECK(ark_session_create(model, &options, &session) == ARK_OK);
  CHECK(ark_session_fill_random(session, 0, 0) == ARK_OK && ark_session_length(session) == 0);
  CHECK(ark_session_fill_random(session, 16, UINT64_MAX) == ARK_OK);
  CHECK(ark_session_length(session) == 16);
  const int32_t token = 1;
  CHECK(ark_session_append(session, &token, 1, 0, nullptr) == ARK_CONTEXT_OVERFLOW);
  CHECK(ark_session_rollback(session, 0) == ARK_OK);
  CHECK(ark_session_fill_random(session, 15, 1) == ARK_OK);
  CHECK(ark_session_append(session, &token, 1, 0, nullptr) == ARK_OK);
  ark_session_free(session);
  ark_model_free(model);
}
