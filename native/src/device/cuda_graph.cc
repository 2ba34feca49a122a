#include "device/cuda_graph.h"

#include <utility>

namespace ark {

CudaGraph::CudaGraph(std::vector<CudaLaunch> body, std::vector<CudaLaunch> head,
                     const LaunchScalars& scalars)
    : body_(body.size()) {
  cu::check(cu::api().GraphCreate(graph_.out(), 0), "making a graph");
  LaunchScalars alone;
  alone.tokens = 1;
  alone.capacity = scalars.capacity;
  for (CudaLaunch& launch : body) add(std::move(launch), scalars);
  for (CudaLaunch& launch : head) add(std::move(launch), alone);
  cu::check(cu::api().GraphInstantiate(exec_.out(), graph_.get(), 0), "making a graph");
  for (Entry& entry : entries_) enable(&entry);
}

void CudaGraph::add(CudaLaunch launch, const LaunchScalars& scalars) {
  launch.set(scalars);
  cu::KernelNode parameters = launch.node();
  const cu::Node* before = entries_.empty() ? nullptr : &entries_.back().node;
  cu::Node node = nullptr;
  cu::check(cu::api().GraphAddKernelNode(&node, graph_.get(), before, before ? 1 : 0, &parameters),
            launch.place());
  entries_.push_back({std::move(launch), node, true});
}

void CudaGraph::enable(Entry* entry) {
  bool enabled = !entry->launch.empty();
  if (enabled == entry->enabled) return;
  cu::check(cu::api().GraphNodeSetEnabled(exec_.get(), entry->node, enabled ? 1 : 0),
            entry->launch.place());
  entry->enabled = enabled;
}

void CudaGraph::set(const LaunchScalars& scalars) {
  for (size_t i = 0; i < body_; i++) {
    Entry& entry = entries_[i];
    if (!entry.launch.set(scalars) || (entry.launch.empty() && !entry.enabled)) continue;
    cu::KernelNode parameters = entry.launch.node();
    cu::check(cu::api().GraphExecKernelNodeSetParams(exec_.get(), entry.node, &parameters),
              entry.launch.place());
    enable(&entry);
  }
}

void CudaGraph::run(cu::Stream stream) {
  cu::check(cu::api().GraphLaunch(exec_.get(), stream), "starting the graph of a token");
}

}  // namespace ark
