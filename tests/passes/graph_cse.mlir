// RUN: tcc-opt %s --passes=cse --remarks 2>&1 | filecheck %s
// RUN: not tcc-opt %s --passes=cse{max-ops=2} 2>&1 | filecheck %s --check-prefix=OPTION

// Equal ops become one, in either order of operands, and in branches too; 0 and -0 differ, and random ops never match.
// CHECK: graph.host{{.*}}Random_1{{.*}}random_normal_like gives other values at every call
// CHECK: ^bb0(%x: tensor<4xf32>, %y: tensor<4xf32>, %c: tensor<i1>):
// CHECK-NEXT: %[[A:.*]] = graph.add(%x, %y) {{.*}} loc("Add_0", "Add_1")
// CHECK-NEXT: %[[P0:.*]] = graph.clip(%x) {lo = 0.0}
// CHECK-NEXT: %[[P1:.*]] = graph.clip(%x) {lo = -0.0}
// CHECK-NEXT: %[[R0:.*]] = graph.host(%x)
// CHECK-NEXT: %[[R1:.*]] = graph.host(%x)
// CHECK-NEXT: graph.if(%c)
// CHECK-NEXT: ^bb0:
// CHECK-NEXT: graph.yield(%[[A]])
// OPTION: the pass cse has no option max-ops
graph.func() {sym_name = "main", arg_names = ["x", "y", "c"], result_names = ["a", "b", "p", "q", "r", "s", "t"]} ({
^bb0(%x: tensor<4xf32>, %y: tensor<4xf32>, %c: tensor<i1>):
  %0 = graph.add(%x, %y) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("Add_0")
  %1 = graph.add(%y, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32> loc("Add_1")
  %2 = graph.clip(%x) {lo = 0.0} : (tensor<4xf32>) -> tensor<4xf32>
  %3 = graph.clip(%x) {lo = -0.0} : (tensor<4xf32>) -> tensor<4xf32>
  %4 = graph.host(%x) {function = "random_normal_like", given = [1], types = [tensor<4xf32>]} : (tensor<4xf32>) -> tensor<4xf32> loc("Random_0")
  %5 = graph.host(%x) {function = "random_normal_like", given = [1], types = [tensor<4xf32>]} : (tensor<4xf32>) -> tensor<4xf32> loc("Random_1")
  %6 = graph.if(%c) ({
  ^bb0:
    %7 = graph.add(%x, %y) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    graph.yield(%7) : (tensor<4xf32>) -> ()
  }, {
  ^bb0:
    graph.yield(%x) : (tensor<4xf32>) -> ()
  }) : (tensor<i1>) -> tensor<4xf32>
  graph.return(%0, %1, %2, %3, %4, %5, %6) : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> ()
}) : () -> ()
