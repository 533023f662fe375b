// RUN: not tcc-opt %s --passes=fold-constants 2>&1 | filecheck %s

// CHECK: error: graph.gather at "Gather_0" cannot be computed: index 7 is outside [-2, 1]
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<2xf32>):
  %0 = graph.constant() {value = dense<2xf32: 1, 2>} : () -> tensor<2xf32>
  %1 = graph.constant() {value = dense<i64: 7>} : () -> tensor<i64>
  %2 = graph.gather(%0, %1) : (tensor<2xf32>, tensor<i64>) -> tensor<f32> loc("Gather_0")
  %3 = graph.add(%x, %2) : (tensor<2xf32>, tensor<f32>) -> tensor<2xf32>
  graph.return(%3) : (tensor<2xf32>) -> ()
}) : () -> ()
