// RUN: not tcc-opt %s 2>&1 | filecheck %s

// CHECK: tcc-opt: error: graph.add at "Add_0": the extents 3 and 4 do not broadcast
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<2x3xf32>):
  %0 = graph.constant() {value = dense<4xf32: 1>} : () -> tensor<4xf32>
  %1 = graph.add(%x, %0) : (tensor<2x3xf32>, tensor<4xf32>) -> tensor<2x3xf32> loc("Add_0")
  graph.return(%1) : (tensor<2x3xf32>) -> ()
}) : () -> ()
