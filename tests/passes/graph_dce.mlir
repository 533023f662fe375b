// RUN: tcc-opt %s --passes=dce | filecheck %s
// RUN: not tcc-opt %s --passes=dce{deep=true} 2>&1 | filecheck %s --check-prefix=OPTION

// Ops without uses go, and so do results of branches and groups that nothing uses; inputs stay.
// CHECK: ^bb0(%x: tensor<4xf32>, %unused: tensor<4xf32>, %c: tensor<i1>):
// CHECK-NOT: graph.exp
// CHECK-NEXT: %[[R:.*]] = graph.if(%c) ({
// CHECK-NEXT: ^bb0:
// CHECK-NEXT: %[[N:.*]] = graph.neg(%x)
// CHECK-NEXT: graph.yield(%[[N]]) : (tensor<4xf32>) -> ()
// CHECK-NEXT: }, {
// CHECK-NEXT: ^bb0:
// CHECK-NEXT: graph.yield(%x) : (tensor<4xf32>) -> ()
// CHECK: %[[F:.*]] = graph.fused(%[[R]]) ({
// CHECK-NEXT: ^bb0(%[[A:.*]]: tensor<4xf32>):
// CHECK-NEXT: %[[S:.*]] = graph.relu(%[[A]])
// CHECK-NEXT: graph.yield(%[[S]]) : (tensor<4xf32>) -> ()
// CHECK: graph.return(%[[F]])
// OPTION: the pass dce has no option deep
graph.func() {sym_name = "main", arg_names = ["x", "unused", "c"], result_names = ["y"]} ({
^bb0(%x: tensor<4xf32>, %unused: tensor<4xf32>, %c: tensor<i1>):
  %0 = graph.exp(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = graph.exp(%0) : (tensor<4xf32>) -> tensor<4xf32>
  %2, %3 = graph.if(%c) ({
  ^bb0:
    %4 = graph.neg(%x) : (tensor<4xf32>) -> tensor<4xf32>
    %5 = graph.exp(%x) : (tensor<4xf32>) -> tensor<4xf32>
    graph.yield(%5, %4) : (tensor<4xf32>, tensor<4xf32>) -> ()
  }, {
  ^bb0:
    graph.yield(%x, %x) : (tensor<4xf32>, tensor<4xf32>) -> ()
  }) : (tensor<i1>) -> (tensor<4xf32>, tensor<4xf32>)
  %6, %7 = graph.fused(%3, %x) ({
  ^bb0(%8: tensor<4xf32>, %9: tensor<4xf32>):
    %10 = graph.relu(%8) : (tensor<4xf32>) -> tensor<4xf32>
    %11 = graph.relu(%9) : (tensor<4xf32>) -> tensor<4xf32>
    graph.yield(%10, %11) : (tensor<4xf32>, tensor<4xf32>) -> ()
  }) : (tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
  graph.return(%6) : (tensor<4xf32>) -> ()
}) : () -> ()
