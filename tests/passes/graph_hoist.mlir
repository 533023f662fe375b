// RUN: tcc-opt %s --passes=hoist --remarks 2>&1 | filecheck %s
// NUMERICS: hoist,canonicalize,dce

// The product goes, with the pointwise op that it reads; the pointwise op that it does not need stays, as does what
// reads the state, and what an inner loop computes from outside of both leaves both.
// CHECK: graph.matmul: hoist: moved: every iteration would compute the same
// CHECK: ^bb0(%x: tensor<4x4xf32>, %w: tensor<4x4xf32>):
// CHECK: %[[T:.*]] = graph.tanh(%w)
// CHECK-NEXT: %[[P:.*]] = graph.matmul(%x, %[[T]])
// CHECK-NEXT: %[[S:.*]] = graph.reduce(%x)
// CHECK-NEXT: graph.loop(
// CHECK: graph.exp(%x)
// CHECK: graph.add(%{{.*}}, %[[P]])
// CHECK: graph.loop(
// CHECK-NOT: graph.reduce
// CHECK: graph.add(%{{.*}}, %[[S]])
graph.func() {sym_name = "main", arg_names = ["x", "w"], result_names = ["y"]} ({
^bb0(%x: tensor<4x4xf32>, %w: tensor<4x4xf32>):
  %n = graph.constant() {value = dense<i64: 3>} : () -> tensor<i64>
  %0 = graph.loop(%n, %x) {operandSegmentSizes = [1, 0, 1]} ({
  ^bb0(%i: tensor<i64>, %c: tensor<i1>, %s: tensor<4x4xf32>):
    %t = graph.tanh(%w) : (tensor<4x4xf32>) -> tensor<4x4xf32>
    %p = graph.matmul(%x, %t) : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    %e = graph.exp(%x) : (tensor<4x4xf32>) -> tensor<4x4xf32>
    %1 = graph.mul(%s, %e) : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    %2 = graph.add(%1, %p) : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    %3 = graph.loop(%n, %2) {operandSegmentSizes = [1, 0, 1]} ({
    ^bb0(%j: tensor<i64>, %d: tensor<i1>, %u: tensor<4x4xf32>):
      %r = graph.reduce(%x) {kind = "sum", axes = [1], keepdims = true} : (tensor<4x4xf32>) -> tensor<4x1xf32>
      %4 = graph.add(%u, %r) : (tensor<4x4xf32>, tensor<4x1xf32>) -> tensor<4x4xf32>
      %5 = graph.tanh(%4) : (tensor<4x4xf32>) -> tensor<4x4xf32>
      graph.yield(%d, %5) : (tensor<i1>, tensor<4x4xf32>) -> ()
    }) : (tensor<i64>, tensor<4x4xf32>) -> tensor<4x4xf32>
    graph.yield(%c, %3) : (tensor<i1>, tensor<4x4xf32>) -> ()
  }) : (tensor<i64>, tensor<4x4xf32>) -> tensor<4x4xf32>
  graph.return(%0) : (tensor<4x4xf32>) -> ()
}) : () -> ()
