# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs built node by node, so that a node's pointers can be changed between launches.

Edges are the dependences between ops; independent ops may overlap. A launch marked `pdl` whose one predecessor is a
launch too hangs on a programmatic edge: it starts early and its blocks wait at griddepcontrol.wait. Since every block
of such a launch waits there, its completion implies its predecessor's, so dependences stay transitive.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from tcc.runtime.cuda.device import Gpu
from tcc.runtime.cuda.driver import api, check, let_go
from tcc.runtime.cuda.launch import Copy, Fill, Launch, Node

_PROGRAMMATIC_CAPABILITY = (9, 0)


class Graph:
    """A graph under construction, then (after `instantiate`) one to launch. Used by one thread at a time."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._graph = check(api().cuGraphCreate(0), "make a graph")
        self._handles: list[Any] = []
        self._launches: list[bool] = []
        self._exec: Any = None
        self._finalizer = weakref.finalize(self, _destroy, gpu, [self._graph])
        self._finalizer.atexit = False

    def add(self, node: Node | None, after: Sequence[int] = ()) -> int:
        """Adds an op (None: one without work) that waits for the nodes `after`; its number."""
        cu = api()
        if node is None:
            handle = check(cu.cuGraphAddEmptyNode(self._graph, [], 0), "add an empty node to a graph")
        elif isinstance(node, Launch):
            what = f"add a launch of {node.kernel.name} (grid {node.grid}, block {node.block}) to a graph"
            handle = check(cu.cuGraphAddKernelNode(self._graph, [], 0, _kernel_params(node)), what)
            self._set_attributes(handle, node)
        elif isinstance(node, Fill):
            params = _fill_params(node)
            handle = check(
                cu.cuGraphAddMemsetNode(self._graph, [], 0, params, self.gpu.context), "add a memset to a graph"
            )
        else:
            params = _copy_params(node)
            handle = check(
                cu.cuGraphAddMemcpyNode(self._graph, [], 0, params, self.gpu.context), "add a copy to a graph"
            )
        programmatic = (
            isinstance(node, Launch)
            and node.pdl
            and self.gpu.device.capability >= _PROGRAMMATIC_CAPABILITY
            and len(after) == 1
            and self._launches[after[0]]
        )
        return self._append(handle, after, programmatic, node)

    def add_event(self, event: Any, after: Sequence[int] = ()) -> int:
        """Adds the recording of an event."""
        handle = check(api().cuGraphAddEventRecordNode(self._graph, [], 0, event), "add an event to a graph")
        return self._append(handle, after, False, None)

    def instantiate(self) -> None:
        """Makes the graph ready to launch; no node is added afterwards."""
        self._exec = check(api().cuGraphInstantiate(self._graph, 0), "instantiate a graph")
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _destroy, self.gpu, [self._graph, self._exec])
        self._finalizer.atexit = False

    def update(self, number: int, node: Node | None) -> None:
        """Gives a node other pointers for the launches from now on."""
        cu = api()
        handle = self._handles[number]
        if node is None:
            return
        if isinstance(node, Launch):
            params = _kernel_params(node)
            check(
                cu.cuGraphExecKernelNodeSetParams(self._exec, handle, params), f"rebind the kernel {node.kernel.name}"
            )
        elif isinstance(node, Fill):
            check(
                cu.cuGraphExecMemsetNodeSetParams(self._exec, handle, _fill_params(node), self.gpu.context),
                "rebind a memset",
            )
        else:
            check(
                cu.cuGraphExecMemcpyNodeSetParams(self._exec, handle, _copy_params(node), self.gpu.context),
                "rebind a copy",
            )

    def upload(self, stream: int) -> None:
        """Moves what the launch needs to the device ahead of the first one."""
        check(api().cuGraphUpload(self._exec, stream), "upload a graph")

    def launch(self, stream: int) -> None:
        """Launches the graph."""
        check(api().cuGraphLaunch(self._exec, stream), "launch a graph")

    def close(self) -> None:
        """Destroys the graph, after the work of its launches."""
        self._finalizer()

    def _append(self, handle: Any, after: Sequence[int], programmatic: bool, node: Node | None) -> int:
        cu = api()
        if after:
            edges = []
            for _ in after:
                edge = cu.CUgraphEdgeData()
                if programmatic:
                    edge.type = cu.CUgraphDependencyType.CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC
                    edge.from_port = 1  # CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC
                edges.append(edge)
            sources = [self._handles[number] for number in after]
            result = cu.cuGraphAddDependencies(self._graph, sources, [handle] * len(after), edges, len(after))
            check(result, "order the nodes of a graph")
        self._handles.append(handle)
        self._launches.append(isinstance(node, Launch))
        return len(self._handles) - 1

    def _set_attributes(self, handle: Any, node: Launch) -> None:
        cu = api()
        ids = cu.CUlaunchAttributeID
        if node.cluster is not None:
            value = cu.CUkernelNodeAttrValue()
            value.clusterDim.x, value.clusterDim.y, value.clusterDim.z = node.cluster
            self._set(handle, ids.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, value, node)
        if node.cooperative:
            value = cu.CUkernelNodeAttrValue()
            value.cooperative = 1
            self._set(handle, ids.CU_LAUNCH_ATTRIBUTE_COOPERATIVE, value, node)

    def _set(self, handle: Any, which: Any, value: Any, node: Launch) -> None:
        check(api().cuGraphKernelNodeSetAttribute(handle, which, value), f"set {which.name} of {node.kernel.name}")


def _kernel_params(node: Launch) -> Any:
    """The driver's structure; it points to the node's parameters, so it stays right when they change."""
    if node.raw is not None:
        return node.raw
    params = node.raw = api().CUDA_KERNEL_NODE_PARAMS()
    params.func = node.kernel.function
    params.gridDimX, params.gridDimY, params.gridDimZ = node.grid
    params.blockDimX, params.blockDimY, params.blockDimZ = node.block
    params.sharedMemBytes = node.shared
    params.kernelParams = node.parameters.address
    return params


def _fill_params(node: Fill) -> Any:
    params = api().CUDA_MEMSET_NODE_PARAMS()
    width = 4 if node.pointer % 4 == 0 and node.nbytes % 4 == 0 else 1
    params.dst = node.pointer
    params.elementSize = width
    params.value = int.from_bytes(bytes([node.value]) * width, "little")
    params.width = node.nbytes // width
    params.height = 1
    return params


def _copy_params(node: Copy) -> Any:
    cu = api()
    params = cu.CUDA_MEMCPY3D()
    params.srcMemoryType = params.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
    params.srcDevice, params.dstDevice = node.source, node.destination
    params.WidthInBytes, params.Height, params.Depth = node.nbytes, 1, 1
    return params


def _destroy(gpu: Gpu, parts: list[Any]) -> None:
    cu = api()
    with gpu.active():
        if len(parts) == 2:
            let_go(cu.cuGraphExecDestroy(parts[1]), "destroy a graph")
        let_go(cu.cuGraphDestroy(parts[0]), "destroy a graph")
