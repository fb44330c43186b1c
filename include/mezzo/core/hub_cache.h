#pragma once
// Models that are named as the Hugging Face Hub names them. Nothing is fetched: a name is looked up in the
// cache in which huggingface_hub keeps what it has downloaded
// (https://huggingface.co/docs/huggingface_hub/guides/manage-cache):
//   CACHE/models--ORG--NAME/refs/main             the commit that the branch main was at
//   CACHE/models--ORG--NAME/snapshots/COMMIT/...  the files, as links into blobs/
#include <string>
#include <utility>

namespace mezzo {

class HubCache {
 public:
  explicit HubCache(std::string folder) : folder_(std::move(folder)) {}
  /// HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else
  /// ~/.cache/huggingface/hub. Variables that are empty are passed over.
  static HubCache of_environment();

  const std::string& folder() const { return folder_; }

  /// The folder or file that `name` stands for, as an absolute path:
  ///   a path that exists: itself; a folder of the cache, .../models--ORG--NAME: its snapshot;
  ///   else an id, NAME or ORG/NAME, that the cache holds: its snapshot;
  ///   else, where `name` cannot be an id: itself, for the reader to say what is missing.
  /// The snapshot is that of refs/main; without that file the only one. UsageError for an id that the cache
  /// does not hold (it says how to fetch it), for a folder of the cache without a snapshot, and for one whose
  /// snapshot is in doubt.
  std::string find(const std::string& name) const;

 private:
  std::string folder_;
};

/// find() of the environment's cache.
std::string find_model(const std::string& name);

}  // namespace mezzo
