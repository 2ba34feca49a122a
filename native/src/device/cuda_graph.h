// The kernels of a decoded token as one CUDA graph: the driver is called once a token, not once a
// kernel.
//
// From token to token some scalars and grids change (`past`, and what follows from it). They are
// set in the nodes of the graph, only where they differ. A buffer of scalars on the device would
// spare that, but every kernel would have to read it, and grids would have to be as large as the
// context allows. The next token's values are set while the device still runs this one's.
#pragma once

#include <vector>

#include "device/cuda_launch.h"

namespace ark {

class CudaGraph {
 public:
  // The launches run one after the other.
  CudaGraph(std::vector<CudaLaunch> body, std::vector<CudaLaunch> head,
            const LaunchScalars& scalars);

  // Sets the body for a token; a launch that runs is not touched.
  void set(const LaunchScalars& scalars);
  void run(cu::Stream stream);

 private:
  struct Entry {
    CudaLaunch launch;
    cu::Node node;
    bool enabled;
  };

  void add(CudaLaunch launch, const LaunchScalars& scalars);
  void enable(Entry* entry);

  cu::Handle<cu::Graph, &cu::Api::GraphDestroy> graph_;
  cu::Handle<cu::GraphExec, &cu::Api::GraphExecDestroy> exec_;
  std::vector<Entry> entries_;
  size_t body_ = 0;  // the first entries
};

}  // namespace ark
