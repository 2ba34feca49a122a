#include "compiled_library.h"

#include <dlfcn.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <string>

#include "cpu_features.h"
#include "error.h"
#include "isa.h"

namespace ark {
namespace {

constexpr const char* kRemedy =
    "compile the bundle for this machine, or run it with --kernels builtin";
constexpr uint64_t kAlignment = 64;

// What TVM hands to a task: the tasks there are.
struct TaskEnvironment {
  void* sync;
  int32_t tasks;
};
using Task = int (*)(int task, TaskEnvironment* environment, void* closure);

// The memory of this thread, taken and given back in stack order.
struct Workspace {
  char* data = nullptr;
  uint64_t used = 0;
  uint64_t size = 0;
};
thread_local Workspace workspace;
thread_local const CompiledContext* running = nullptr;

void* allocate(int, int, uint64_t bytes, int, int) {
  uint64_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (rounded > workspace.size - workspace.used) return nullptr;
  char* data = workspace.data + workspace.used;
  workspace.used += rounded;
  return data;
}

int release(int, int, void* pointer) {
  workspace.used = static_cast<uint64_t>(static_cast<char*>(pointer) - workspace.data);
  return 0;
}

struct Round {
  Task task;
  void* closure;
  TaskEnvironment environment;
  const CompiledContext* context;
  std::atomic<int> failed;
};

void run_task(void* user, int64_t index, int32_t thread) {
  auto* round = static_cast<Round*>(user);
  const CompiledContext& context = *round->context;
  workspace = {context.workspace + thread * context.workspace_bytes, 0,
               static_cast<uint64_t>(context.workspace_bytes)};
  int code = round->task(static_cast<int>(index), &round->environment, round->closure);
  if (code) round->failed.store(code, std::memory_order_relaxed);
}

int launch(Task task, void* closure, int /*tasks: all that are useful*/) {
  // Several tasks per thread, so that one that is held up does not hold up the rest.
  constexpr int32_t kTasksPerThread = 4;
  int32_t threads = running->parallel->threads;
  int64_t useful = threads == 1 ? 1 : threads * kTasksPerThread;
  auto tasks = static_cast<int32_t>(std::max<int64_t>(1, std::min(useful, running->groups)));
  Round round{task, closure, {nullptr, tasks}, running, {0}};
  running->parallel->run(running->parallel->pool, tasks, run_task, &round);
  return round.failed.load(std::memory_order_relaxed);
}

// A copy in memory: what is loaded are the bytes that were checked, whatever happens to the file.
int copy_to_memory(const MappedFile& file) {
#if defined(__linux__)
  int copy = memfd_create("arkinfer-kernels", MFD_CLOEXEC);
  size_t written = 0;
  while (copy >= 0 && written < file.size()) {
    ssize_t count = write(copy, file.data() + written, file.size() - written);
    if (count <= 0) {
      close(copy);
      return -1;
    }
    written += static_cast<size_t>(count);
  }
  return copy;
#else
  (void)file;
  return -1;
#endif
}

void set_hook(void* library, const char* symbol, void* function) {
  if (auto* place = static_cast<void**>(dlsym(library, symbol))) *place = function;
}

}  // namespace

CompiledLibrary::CompiledLibrary(const MappedFile& file, Isa isa) {
  if (!cpu_runs(isa)) {
    std::string usable;
    for (Isa entry : usable_isas())
      usable += (usable.empty() ? "" : ", ") + std::string(isa_name(entry));
    fail(ARK_INVALID_BUNDLE, "kernels.so holds code for " + std::string(isa_name(isa)),
         "one of " + usable + ", which this CPU runs", kRemedy);
  }
  copy_ = copy_to_memory(file);
  if (copy_ < 0) {
    fail(ARK_EXECUTOR_FAILED, "this system gives no memory file for kernels.so", "Linux", kRemedy);
  }
  handle_ = dlopen(("/proc/self/fd/" + std::to_string(copy_)).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle_) {
    const char* why = dlerror();
    close(copy_);
    fail(ARK_INVALID_BUNDLE, "kernels.so cannot be loaded: " + quote(why ? why : ""),
         "a library for " + std::string(isa_name(isa)), kRemedy);
  }
  set_hook(handle_, "__TVMBackendParallelLaunch", reinterpret_cast<void*>(launch));
  set_hook(handle_, "__TVMBackendAllocWorkspace", reinterpret_cast<void*>(allocate));
  set_hook(handle_, "__TVMBackendFreeWorkspace", reinterpret_cast<void*>(release));
}

CompiledLibrary::~CompiledLibrary() {
  dlclose(handle_);
  close(copy_);
}

tvm_abi::Function CompiledLibrary::find(const std::string& function) const {
  void* found = dlsym(handle_, ("__tvm_ffi_" + function).c_str());
  if (!found) {
    fail(ARK_INVALID_BUNDLE, "kernels.so has no function " + quote(function),
         "the one that kernels.json names", "compile the bundle again");
  }
  return reinterpret_cast<tvm_abi::Function>(found);
}

void call_compiled(tvm_abi::Function function, const tvm_abi::Any* arguments, int32_t count,
                   const CompiledContext& context) {
  const CompiledContext* outer = running;
  running = &context;
  tvm_abi::Any result{};
  int32_t code = function(nullptr, arguments, count, &result);
  running = outer;
  if (code) fail(ARK_EXECUTOR_FAILED, "a kernel of kernels.so failed", "", kRemedy);
}

}  // namespace ark
