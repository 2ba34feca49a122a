// A libcuda.so for tests: device memory is the host's, and kernels are those of shared libraries
// that the fake nvcc makes of their source (nvcc.py). It checks what a GPU would not forgive, and
// more: addresses, sizes of parameters, grids, writes around allocations, contexts, use after
// release.
//
// Tests steer it through fake_set, and read what happened through fake_count and fake_error.
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using Address = unsigned long long;
using Run = const char* (*)(const unsigned grid[3], unsigned lanes, unsigned shared, void** values);
using Sizes = size_t (*)(size_t index);

enum Code {
  kOk = 0,
  kInvalid = 1,
  kNoMemory = 2,
  kNoContext = 201,
  kBadImage = 200,
  kPtx = 222,
  kNotFound = 500,
  kBadAddress = 700,
  kTooMuch = 701,
  kLaunchFailed = 719
};

// So that the host dies of touching it: addresses of the device are no addresses of the host.
constexpr Address kDeviceBit = Address{1} << 62;
constexpr size_t kFence = 4096;
constexpr unsigned char kFenceByte = 0xA5;

struct Allocation {
  std::unique_ptr<unsigned char[]> memory;
  size_t bytes;
  bool managed, attached;
};
struct Module {
  void* library;
};
struct Function {
  Module* module;
  Run run;
  Sizes sizes;
  std::string name;
  int most_shared = 48 << 10;
};
struct Node {  // as CUDA_KERNEL_NODE_PARAMS_v2
  Function* function;
  unsigned grid[3], block[3], shared;
  void** values;
  void** extra;
  void* kernel;
  void* context;
};
struct GraphNode {
  Node node;
  GraphNode* before;
  std::vector<uint64_t> values;
  bool enabled = true;
};
struct Graph {
  std::vector<std::unique_ptr<GraphNode>> nodes;
};
struct Exec {
  std::map<GraphNode*, GraphNode> nodes;
  std::vector<GraphNode*> order;
};

std::map<Address, Allocation> allocations;  // by the address that the user has
std::map<std::string, int> settings = {
    {"capability", 87}, {"driver", 13000}, {"devices", 1}, {"shared", 166912}};
std::map<std::string, int> counts;
std::string error;
bool arriving = false;  // a copy from the host that nobody has waited for
int pending = kOk;      // what the next synchronization tells
thread_local bool current = false;

// Counts a call; the code that a test wants from this one, or kOk.
int call(const char* name) {
  counts[name]++;
  auto wanted = settings.find(std::string("fail ") + name);
  if (wanted == settings.end()) return kOk;
  auto after = settings.find(std::string("after ") + name);
  if (after != settings.end() && after->second-- > 0) return kOk;
  return wanted->second;
}

int refuse(int code, const std::string& message) {
  if (error.empty()) error = message;
  return code;
}

#define CALL(name)                                     \
  if (int code = call(name); code != kOk) return code; \
  if (!current) return refuse(kNoContext, std::string(name) + " without a context")

unsigned char* host(Address address) {
  return reinterpret_cast<unsigned char*>(address & ~kDeviceBit);
}

// The allocation that holds [address, address + bytes), or null.
Allocation* find(Address address, size_t bytes) {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return nullptr;
  --after;
  bool inside = address + bytes <= after->first + after->second.bytes;
  return inside ? &after->second : nullptr;
}

int check_fences() {
  for (auto& [address, one] : allocations) {
    const unsigned char* start = one.memory.get();
    for (size_t i = 0; i < kFence; i++) {
      if (start[i] != kFenceByte || start[kFence + one.bytes + i] != kFenceByte) {
        return refuse(kBadAddress, "a write around an allocation of " + std::to_string(one.bytes));
      }
    }
  }
  return kOk;
}

int allocate(Address* address, size_t bytes, bool managed) {
  auto limit = settings.find("memory");
  size_t used = bytes;
  for (auto& [at, one] : allocations) used += one.bytes;
  if (limit != settings.end() && used > static_cast<size_t>(limit->second)) return kNoMemory;
  if (bytes == 0) return kInvalid;
  Allocation made{std::make_unique<unsigned char[]>(bytes + 2 * kFence + 256), bytes, managed,
                  !managed};
  std::memset(made.memory.get(), kFenceByte, kFence);
  std::memset(made.memory.get() + kFence, 0xFF, bytes);  // NaN
  std::memset(made.memory.get() + kFence + bytes, kFenceByte, kFence);
  *address = reinterpret_cast<Address>(made.memory.get() + kFence) | (managed ? 0 : kDeviceBit);
  allocations.emplace(*address, std::move(made));
  return kOk;
}

int copy(Address to, Address from, size_t bytes, bool to_device, bool from_device) {
  if (to_device && !find(to, bytes)) return refuse(kInvalid, "a copy to outside of memory");
  if (from_device && !find(from, bytes)) return refuse(kInvalid, "a copy from outside of memory");
  std::memmove(host(to), host(from), bytes);
  return kOk;
}

int run(const Node& node) {
  Function* f = node.function;
  if (arriving) return refuse(kInvalid, "a kernel beside a copy to the device: " + f->name);
  const unsigned lanes = node.block[0];
  if (node.block[1] != 1 || node.block[2] != 1 || lanes == 0 || lanes > 1024 || node.grid[0] == 0 ||
      node.grid[1] == 0 || node.grid[2] == 0 || node.grid[1] > 65535 || node.grid[2] > 65535) {
    return refuse(kInvalid, "the grid of " + f->name);
  }
  if (static_cast<int>(node.shared) > f->most_shared)
    return refuse(kTooMuch, "shared memory of " + f->name);
  std::vector<Address> values;
  std::vector<void*> pointers;
  for (size_t i = 0; f->sizes(i) != 0; i++) {
    Address value = 0;
    std::memcpy(&value, node.values[i], f->sizes(i));
    if (f->sizes(i) == sizeof(Address)) {
      Allocation* one = find(value, 1);
      if (!one || !one->attached)
        return refuse(kBadAddress, "argument " + std::to_string(i) + " of " + f->name);
      value = reinterpret_cast<Address>(host(value));
    }
    values.push_back(value);
  }
  for (Address& value : values) pointers.push_back(&value);
  counts["kernels"]++;
  const char* message = f->run(node.grid, lanes, node.shared, pointers.data());
  return message ? refuse(kLaunchFailed, f->name + ": " + message) : kOk;
}

void keep_values(GraphNode* made, const Node& node) {
  made->node = node;
  made->values.clear();
  for (size_t i = 0; node.function->sizes(i) != 0; i++) {
    uint64_t value = 0;
    std::memcpy(&value, node.values[i], node.function->sizes(i));
    made->values.push_back(value);
  }
}

int run_kept(GraphNode* one) {
  std::vector<void*> pointers;
  for (uint64_t& value : one->values) pointers.push_back(&value);
  Node node = one->node;
  node.values = pointers.data();
  return run(node);
}

}  // namespace

EXPORT void fake_set(const char* name, int value) { settings[name] = value; }
EXPORT void fake_unset(const char* name) { settings.erase(name); }
EXPORT int fake_count(const char* name) { return counts[name]; }
EXPORT const char* fake_error() { return error.c_str(); }
EXPORT void fake_forget() {
  counts.clear();
  error.clear();
}
EXPORT long long fake_bytes() {
  long long bytes = 0;
  for (auto& [address, one] : allocations) bytes += static_cast<long long>(one.bytes);
  return bytes;
}

EXPORT int cuInit(unsigned) { return call("Init"); }
EXPORT int cuDriverGetVersion(int* version) { return *version = settings["driver"], kOk; }
EXPORT int cuGetErrorName(int code, const char** name) {
  static const std::map<int, const char*> names = {{kInvalid, "CUDA_ERROR_INVALID_VALUE"},
                                                   {kNoMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
                                                   {kBadImage, "CUDA_ERROR_INVALID_IMAGE"},
                                                   {kNoContext, "CUDA_ERROR_INVALID_CONTEXT"},
                                                   {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
                                                   {221, "CUDA_ERROR_JIT_COMPILER_NOT_FOUND"},
                                                   {kPtx, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
                                                   {kNotFound, "CUDA_ERROR_NOT_FOUND"},
                                                   {kBadAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
                                                   {kTooMuch, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
                                                   {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"}};
  auto found = names.find(code);
  if (found == names.end()) return kInvalid;
  *name = found->second;
  return kOk;
}
EXPORT int cuDeviceGetCount(int* count) { return *count = settings["devices"], kOk; }
EXPORT int cuDeviceGet(int* device, int index) { return *device = index, kOk; }
EXPORT int cuDeviceGetName(char* name, int size, int) {
  return std::snprintf(name, static_cast<size_t>(size), "Fake GPU"), kOk;
}
EXPORT int cuDeviceGetAttribute(int* value, int what, int) {
  const int capability = settings["capability"];
  switch (what) {
    case 1:
      *value = 1024;
      break;
    case 18:
      *value = settings["integrated"];
      break;
    case 75:
      *value = capability / 10;
      break;
    case 76:
      *value = capability % 10;
      break;
    case 97:
      *value = settings["shared"];
      break;
    default:
      return refuse(kInvalid, "attribute " + std::to_string(what));
  }
  return kOk;
}
EXPORT int cuDevicePrimaryCtxRetain(void** context, int) {
  static int the_context;
  *context = &the_context;
  return call("DevicePrimaryCtxRetain");
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) { return call("DevicePrimaryCtxRelease"); }
EXPORT int cuCtxSetCurrent(void* context) { return current = context != nullptr, kOk; }
EXPORT int cuStreamCreate(void** stream, unsigned) {
  CALL("StreamCreate");
  *stream = new int;
  return kOk;
}
EXPORT int cuStreamDestroy_v2(void* stream) {
  delete static_cast<int*>(stream);
  return call("StreamDestroy");
}
EXPORT int cuStreamSynchronize(void* stream) {
  CALL("StreamSynchronize");
  if (!stream) arriving = false;  // other streams do not wait for this one
  int code = pending;
  pending = kOk;
  return code != kOk ? code : check_fences();
}
EXPORT int cuStreamAttachMemAsync(void*, Address address, size_t, unsigned) {
  CALL("StreamAttachMemAsync");
  Allocation* one = find(address, 1);
  if (!one || !one->managed) return refuse(kInvalid, "attaching what is not managed");
  one->attached = true;
  return kOk;
}
EXPORT int cuMemAlloc_v2(Address* address, size_t bytes) {
  CALL("MemAlloc");
  return allocate(address, bytes, false);
}
EXPORT int cuMemAllocManaged(Address* address, size_t bytes, unsigned) {
  CALL("MemAllocManaged");
  return allocate(address, bytes, true);
}
EXPORT int cuMemFree_v2(Address address) {
  CALL("MemFree");
  int code = check_fences();
  return allocations.erase(address) == 1 ? code : refuse(kInvalid, "freeing what is not allocated");
}
EXPORT int cuMemAllocHost_v2(void** memory, size_t bytes) {
  CALL("MemAllocHost");
  *memory = new char[bytes];
  return kOk;
}
EXPORT int cuMemFreeHost(void* memory) {
  CALL("MemFreeHost");
  delete[] static_cast<char*>(memory);
  return kOk;
}
EXPORT int cuMemcpyHtoD_v2(Address to, const void* from, size_t bytes) {
  CALL("MemcpyHtoD");
  arriving = true;
  return copy(to, reinterpret_cast<Address>(from), bytes, true, false);
}
EXPORT int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void*) {
  CALL("MemcpyHtoDAsync");
  return copy(to, reinterpret_cast<Address>(from), bytes, true, false);
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void*) {
  CALL("MemcpyDtoHAsync");
  return copy(reinterpret_cast<Address>(to), from, bytes, false, true);
}
EXPORT int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void*) {
  CALL("MemcpyDtoDAsync");
  return copy(to, from, bytes, true, true);
}
EXPORT int cuMemsetD8Async(Address at, unsigned char value, size_t bytes, void*) {
  CALL("MemsetD8Async");
  if (!find(at, bytes)) return refuse(kInvalid, "clearing outside of memory");
  std::memset(host(at), value, bytes);
  return kOk;
}

// The image is a shared library: its size is where its section headers, which come last, end.
EXPORT int cuModuleLoadData(Module** module, const void* image) {
  CALL("ModuleLoadData");
  const auto* bytes = static_cast<const unsigned char*>(image);
  if (std::memcmp(bytes, "\177ELF", 4) != 0) return kBadImage;
  uint64_t sections = 0;
  uint16_t each = 0, count = 0;
  std::memcpy(&sections, bytes + 40, 8);
  std::memcpy(&each, bytes + 58, 2);
  std::memcpy(&count, bytes + 60, 2);
  int file = memfd_create("module", 0);
  const size_t size = sections + static_cast<size_t>(each) * count;
  if (file < 0 || write(file, image, size) != static_cast<ssize_t>(size)) return kBadImage;
  void* library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return refuse(kBadImage, dlerror());
  *module =
      new Module{library};  // its file stays open: another would get its name, and be taken for it
  return kOk;
}
EXPORT int cuModuleUnload(Module* module) { return delete module, call("ModuleUnload"); }
EXPORT int cuModuleGetFunction(Function** function, Module* module, const char* name) {
  CALL("ModuleGetFunction");
  const std::string base = name;
  auto run = reinterpret_cast<Run>(dlsym(module->library, (base + "__launch").c_str()));
  auto sizes = reinterpret_cast<Sizes>(dlsym(module->library, (base + "__sizes").c_str()));
  if (!run || !sizes) return kNotFound;
  static std::map<std::pair<void*, std::string>, std::unique_ptr<Function>> known;
  auto& one = known[{module->library, base}];
  if (!one) one = std::make_unique<Function>(Function{module, run, sizes, base});
  *function = one.get();
  return kOk;
}
EXPORT int cuFuncGetAttribute(int* value, int what, Function*) {
  CALL("FuncGetAttribute");
  return *value = 0, what == 1 ? kOk : kInvalid;
}
EXPORT int cuFuncSetAttribute(Function* function, int what, int value) {
  CALL("FuncSetAttribute");
  if (what != 8 || value > settings["shared"])
    return refuse(kInvalid, "an attribute of a function");
  function->most_shared = value;
  return kOk;
}
EXPORT int cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* size) {
  *offset = 0;
  *size = function->sizes(index);
  return *size != 0 ? kOk : kInvalid;
}
EXPORT int cuLaunchKernel(Function* function, unsigned x, unsigned y, unsigned z, unsigned lanes,
                          unsigned lanes_y, unsigned lanes_z, unsigned shared, void*, void** values,
                          void** extra) {
  CALL("LaunchKernel");
  if (int late = call("kernel"); late != kOk) pending = late;
  return run(
      {function, {x, y, z}, {lanes, lanes_y, lanes_z}, shared, values, extra, nullptr, nullptr});
}

EXPORT int cuEventCreate(int** event, unsigned) {
  CALL("EventCreate");
  *event = new int;
  return kOk;
}
EXPORT int cuEventDestroy_v2(int* event) { return delete event, call("EventDestroy"); }
EXPORT int cuEventRecord(int*, void*) { return call("EventRecord"); }
EXPORT int cuEventSynchronize(int*) { return check_fences(); }
EXPORT int cuEventElapsedTime(float* milliseconds, int*, int*) {
  *milliseconds = 1.0f;  // nobody may take it for a measurement
  return kOk;
}

EXPORT int cuGraphCreate(Graph** graph, unsigned) {
  CALL("GraphCreate");
  *graph = new Graph;
  return kOk;
}
EXPORT int cuGraphDestroy(Graph* graph) { return delete graph, call("GraphDestroy"); }
EXPORT int cuGraphAddKernelNode_v2(GraphNode** node, Graph* graph, GraphNode* const* before,
                                   size_t count, const Node* parameters) {
  CALL("GraphAddKernelNode");
  GraphNode* last = graph->nodes.empty() ? nullptr : graph->nodes.back().get();
  if (count != (last ? 1 : 0) || (count == 1 && before[0] != last)) {
    return refuse(kInvalid, "a node that does not follow the one before it");
  }
  auto made = std::make_unique<GraphNode>();
  made->before = last;
  keep_values(made.get(), *parameters);
  *node = made.get();
  graph->nodes.push_back(std::move(made));
  return kOk;
}
EXPORT int cuGraphInstantiateWithFlags(Exec** exec, Graph* graph, unsigned long long) {
  CALL("GraphInstantiate");
  auto made = std::make_unique<Exec>();
  for (auto& node : graph->nodes) {
    made->nodes[node.get()] = *node;
    made->order.push_back(node.get());
  }
  *exec = made.release();
  return kOk;
}
EXPORT int cuGraphExecDestroy(Exec* exec) { return delete exec, call("GraphExecDestroy"); }
EXPORT int cuGraphExecKernelNodeSetParams_v2(Exec* exec, GraphNode* node, const Node* parameters) {
  CALL("GraphExecKernelNodeSetParams");
  auto found = exec->nodes.find(node);
  if (found == exec->nodes.end()) return refuse(kInvalid, "a node of another graph");
  keep_values(&found->second, *parameters);
  return kOk;
}
EXPORT int cuGraphNodeSetEnabled(Exec* exec, GraphNode* node, unsigned enabled) {
  CALL("GraphNodeSetEnabled");
  exec->nodes.at(node).enabled = enabled != 0;
  return kOk;
}
EXPORT int cuGraphLaunch(Exec* exec, void*) {
  CALL("GraphLaunch");
  for (GraphNode* node : exec->order) {
    GraphNode& one = exec->nodes.at(node);
    if (!one.enabled) continue;
    if (int code = run_kept(&one); code != kOk) return code;
  }
  return kOk;
}
