// An epoch of the tutorial's training in C++, by PyTorch's own library, without any Python in it.
#include <torch/extension.h>

// Trains `weights` [out, in] and `biases` [out] of each layer in place; the mean of the losses.
double epoch(std::vector<torch::Tensor> weights, std::vector<torch::Tensor> biases,
             const torch::Tensor& inputs, const torch::Tensor& labels, const torch::Tensor& order,
             int64_t batch_size, double learning_rate) {
  std::vector<torch::Tensor> parameters(weights);
  parameters.insert(parameters.end(), biases.begin(), biases.end());
  torch::optim::SGD optimizer(parameters, torch::optim::SGDOptions(learning_rate));
  torch::Tensor total = torch::zeros({}, inputs.options());
  const auto batches = order.split(batch_size);
  for (const auto& rows : batches) {
    torch::Tensor x = inputs.index_select(0, rows);
    for (size_t i = 0; i < weights.size(); ++i) {
      x = torch::linear(x, weights[i], biases[i]);
      if (i + 1 < weights.size()) x = torch::relu(x);
    }
    torch::Tensor loss = torch::nll_loss(torch::log_softmax(x, 1), labels.index_select(0, rows));
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    total += loss.detach();
  }
  return total.item<double>() / batches.size();
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("epoch", &epoch, pybind11::call_guard<pybind11::gil_scoped_release>());
}
