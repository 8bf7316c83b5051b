// Captions photos by a SavedModel through LoadSavedModel, TensorFlow Serving's
// own loader: caption_photos FOLDER PHOTO... prints a line a photo, its
// caption, score and error between tabs.

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/public/session_options.h"

namespace {

constexpr char kTag[] = "serve";  // The wheel has no tag_constants.h.
constexpr char kSignature[] = "serving_default";

int Fail(const std::string& message) {
  std::cerr << "caption_photos: " << message << "\n";
  return 1;
}

std::string ReadFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return Fail("expected FOLDER PHOTO...");

  tensorflow::SavedModelBundle bundle;
  auto status = tensorflow::LoadSavedModel(tensorflow::SessionOptions(),
                                           tensorflow::RunOptions(), argv[1],
                                           {kTag}, &bundle);
  if (!status.ok()) return Fail(status.ToString());

  const auto& signatures = bundle.meta_graph_def.signature_def();
  const auto found = signatures.find(kSignature);
  if (found == signatures.end()) return Fail("no such signature");
  const auto& signature = found->second;

  const int count = argc - 2;
  tensorflow::Tensor photos(tensorflow::DT_STRING, {count});
  for (int i = 0; i < count; ++i) {
    photos.vec<tensorflow::tstring>()(i) = ReadFile(argv[i + 2]);
  }
  std::vector<std::string> fetches;
  for (const char* name : {"caption", "score", "error"}) {
    fetches.push_back(signature.outputs().at(name).name());
  }
  std::vector<tensorflow::Tensor> outputs;
  status = bundle.session->Run(
      {{signature.inputs().at("image_bytes").name(), photos}}, fetches, {},
      &outputs);
  if (!status.ok()) return Fail(status.ToString());

  for (int i = 0; i < count; ++i) {
    std::cout << outputs[0].vec<tensorflow::tstring>()(i) << "\t"
              << outputs[1].vec<float>()(i) << "\t"
              << outputs[2].vec<tensorflow::tstring>()(i) << "\n";
  }
  return 0;
}
