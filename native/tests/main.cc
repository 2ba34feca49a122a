#include "check.h"

// native_tests [part of a test's name]
int main(int argc, char** argv) { return ark::testing::run_all(argc > 1 ? argv[1] : "") ? 1 : 0; }
