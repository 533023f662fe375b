// RUN: tcc-opt %s --passes=canonicalize,dce | filecheck %s
// NUMERICS: canonicalize,dce,expand-ops

// A state that stays is what it began with; a state that nothing needs goes, although it reads another; where nothing
// ends the loop early its trips are what is stacked; inside, the condition is true; and a loop without a trip is
// nothing.
// CHECK: ^bb0(%x: tensor<4xf32>, %go: tensor<i1>):
// CHECK: %[[L:.*]], %[[A:.*]] = graph.loop(%{{.*}}, %x) {operandSegmentSizes = [1, 0, 1]} ({
// CHECK-NEXT: ^bb0(%{{.*}}: tensor<i64>, %{{.*}}: tensor<i1>, %[[S:.*]]: tensor<4xf32>):
// CHECK-NEXT: %[[T:.*]] = graph.constant()
// CHECK-NEXT: %[[N:.*]] = graph.mul(%[[S]], %x)
// CHECK-NEXT: graph.yield(%[[T]], %[[N]], %[[N]])
// CHECK-NEXT: }) : (tensor<i64>, tensor<4xf32>) -> (tensor<4xf32>, tensor<300x4xf32>)
// CHECK-NOT: graph.loop
// CHECK: graph.return(%[[L]], %[[A]], %x, %{{.*}}, %{{.*}})
graph.func() {sym_name = "main", arg_names = ["x", "go"], result_names = ["y", "all", "stays", "none", "rows"]} ({
^bb0(%x: tensor<4xf32>, %go: tensor<i1>):
  %n = graph.constant() {value = dense<i64: 300>} : () -> tensor<i64>
  %zero = graph.constant() {value = dense<i64: 0>} : () -> tensor<i64>
  %0, %1, %2, %3 = graph.loop(%n, %x, %x, %x) {operandSegmentSizes = [1, 0, 3]} ({
  ^bb0(%i: tensor<i64>, %c: tensor<i1>, %s: tensor<4xf32>, %stay: tensor<4xf32>, %waste: tensor<4xf32>):
    %4 = graph.where(%c, %stay, %s) : (tensor<i1>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %5 = graph.mul(%s, %4) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    %6 = graph.add(%waste, %5) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    graph.yield(%c, %5, %stay, %6, %5) : (tensor<i1>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> ()
  }) : (tensor<i64>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<?x4xf32, #tcc.enc<"dims=[k]">>)
  %7, %8 = graph.loop(%zero, %0) {operandSegmentSizes = [1, 0, 1]} ({
  ^bb0(%j: tensor<i64>, %d: tensor<i1>, %u: tensor<4xf32>):
    %9 = graph.exp(%u) : (tensor<4xf32>) -> tensor<4xf32>
    graph.yield(%go, %9, %9) : (tensor<i1>, tensor<4xf32>, tensor<4xf32>) -> ()
  }) : (tensor<i64>, tensor<4xf32>) -> (tensor<4xf32>, tensor<?x4xf32, #tcc.enc<"dims=[m]">>)
  graph.return(%0, %3, %1, %7, %8) : (tensor<4xf32>, tensor<?x4xf32, #tcc.enc<"dims=[k]">>, tensor<4xf32>, tensor<4xf32>, tensor<?x4xf32, #tcc.enc<"dims=[m]">>) -> ()
}) : () -> ()
