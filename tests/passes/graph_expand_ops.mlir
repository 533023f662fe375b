// RUN: tcc-opt %s --passes=expand-ops,dce --split-input-file --remarks 2>&1 | filecheck %s
// RUN: not tcc-opt %s --passes=expand-ops{all} --split-input-file 2>&1 | filecheck %s --check-prefix=OPTION
// OPTION: the pass expand-ops has no option all

// A linear resize to the double: two taps, each a gather times weights; the other axis is not resized.
// CHECK: ^bb0(%x: tensor<1x2x4x3xf32>):
// CHECK: %[[A:.*]] = graph.gather(%x, %{{.*}}) {axis = 2} : (tensor<1x2x4x3xf32>, tensor<8xi64>) -> tensor<1x2x8x3xf32> loc("Resize_0")
// CHECK: %[[B:.*]] = graph.mul(%[[A]], %{{.*}}) : (tensor<1x2x8x3xf32>, tensor<1x1x8x1xf32>)
// CHECK: %[[C:.*]] = graph.gather(%x, %{{.*}}) {axis = 2}
// CHECK: %[[D:.*]] = graph.mul(%[[C]], %{{.*}})
// CHECK: %[[Y:.*]] = graph.add(%[[B]], %[[D]])
// CHECK-NEXT: graph.return(%[[Y]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<1x2x4x3xf32>):
  %0 = graph.resize(%x) {axes = [2, 3], sizes = [8, 3], mode = "linear"} : (tensor<1x2x4x3xf32>) -> tensor<1x2x8x3xf32> loc("Resize_0")
  graph.return(%0) : (tensor<1x2x8x3xf32>) -> ()
}) : () -> ()

// -----

// A crop and reflected rows; batch norm with given statistics; a nearest resize.
// CHECK: %[[S:.*]] = graph.slice(%x) {starts = [0, 0, 1, 0], sizes = [1, 2, 3, 3], steps = [1, 1, 1, 1]}
// CHECK: %[[P:.*]] = graph.gather(%[[S]], %{{.*}}) {axis = 3} : (tensor<1x2x3x3xf32>, tensor<5xi64>) -> tensor<1x2x3x5xf32>
// CHECK: %[[M:.*]] = graph.mul(%[[P]], %{{.*}}) : (tensor<1x2x3x5xf32>, tensor<1x2x1x1xf32>)
// CHECK: %[[N:.*]] = graph.add(%[[M]], %{{.*}})
// CHECK: %[[R:.*]] = graph.gather(%[[N]], %{{.*}}) {axis = 3} : (tensor<1x2x3x5xf32>, tensor<10xi64>) -> tensor<1x2x3x10xf32>
// CHECK-NEXT: graph.return(%[[R]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<1x2x4x3xf32>):
  %a = graph.constant() {value = dense<2xf32: 1, 2>} : () -> tensor<2xf32>
  %0 = graph.pad(%x) {before = [0, 0, -1, 1], after = [0, 0, 0, 1], mode = "reflect"} : (tensor<1x2x4x3xf32>) -> tensor<1x2x3x5xf32>
  %1 = graph.batch_norm(%0, %a, %a, %a, %a) : (tensor<1x2x3x5xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x3x5xf32>
  %2 = graph.resize_nearest(%1) {axes = [3], scales = [2.0], coordinate_mode = "asymmetric"} : (tensor<1x2x3x5xf32>) -> tensor<1x2x3x10xf32>
  graph.return(%2) : (tensor<1x2x3x10xf32>) -> ()
}) : () -> ()

// -----

// The place of the maximum is the least place that holds it; a running sum has a kernel of its own.
// CHECK: %[[M:.*]] = graph.reduce(%x) {kind = "max", axes = [1]}
// CHECK: %[[E:.*]] = graph.equal(%x, %[[M]])
// CHECK: %[[N:.*]] = graph.isnan(%x)
// CHECK: %[[H:.*]] = graph.or(%[[E]], %[[N]])
// CHECK: %[[W:.*]] = graph.where(%[[H]]
// CHECK: %[[F:.*]] = graph.reduce(%[[W]]) {kind = "min", axes = [1], keepdims = false}
// CHECK: graph.cast(%[[F]]) {to = i64}
// CHECK: graph.cumsum(%x)
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["i", "s"]} ({
^bb0(%x: tensor<2x2000xf32>):
  %0 = graph.arg_reduce(%x) {kind = "max", axis = 1, keepdims = false} : (tensor<2x2000xf32>) -> tensor<2xi64>
  %1 = graph.cumsum(%x) {axis = 1} : (tensor<2x2000xf32>) -> tensor<2x2000xf32> loc("CumSum_0")
  graph.return(%0, %1) : (tensor<2xi64>, tensor<2x2000xf32>) -> ()
}) : () -> ()
