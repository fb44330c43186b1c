// For builds with Arrow.
#include <arrow/api.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/parquet_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

[[noreturn]] void fail(const std::string& path, const std::string& problem) {
  throw InputError("{}: the Parquet file cannot be read: {}", path, problem.substr(0, problem.find('\n')));
}

template <typename Value>
Value checked(arrow::Result<Value> result, const std::string& path) {
  if (!result.ok()) fail(path, result.status().message());
  return std::move(result).ValueUnsafe();
}

void check(const arrow::Status& status, const std::string& path) {
  if (!status.ok()) fail(path, status.message());
}

template <typename Array>
auto value_in(const arrow::Array& array, std::int64_t i) {
  return static_cast<const Array&>(array).Value(i);
}

template <typename Array>
Json text_in(const arrow::Array& array, std::int64_t i) {
  return std::string(static_cast<const Array&>(array).GetView(i));
}

Json value_of(const arrow::Array& array, std::int64_t i);

template <typename Array>
Json list_in(const arrow::Array& array, std::int64_t i) {
  const std::shared_ptr<arrow::Array> items = static_cast<const Array&>(array).value_slice(i);
  Json list = Json::array();
  for (std::int64_t j = 0; j < items->length(); ++j) list.push_back(value_of(*items, j));
  return list;
}

Json struct_in(const arrow::Array& array, std::int64_t i) {
  const auto& fields = static_cast<const arrow::StructArray&>(array);
  Json object = Json::object();
  for (int f = 0; f < fields.num_fields(); ++f)
    object[fields.struct_type()->field(f)->name()] = value_of(*fields.field(f), i);
  return object;
}

Json value_of(const arrow::Array& array, std::int64_t i) {
  if (array.IsNull(i)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::BOOL:
      return value_in<arrow::BooleanArray>(array, i);
    case arrow::Type::INT8:
      return value_in<arrow::Int8Array>(array, i);
    case arrow::Type::INT16:
      return value_in<arrow::Int16Array>(array, i);
    case arrow::Type::INT32:
      return value_in<arrow::Int32Array>(array, i);
    case arrow::Type::INT64:
      return value_in<arrow::Int64Array>(array, i);
    case arrow::Type::UINT8:
      return value_in<arrow::UInt8Array>(array, i);
    case arrow::Type::UINT16:
      return value_in<arrow::UInt16Array>(array, i);
    case arrow::Type::UINT32:
      return value_in<arrow::UInt32Array>(array, i);
    case arrow::Type::UINT64:
      return value_in<arrow::UInt64Array>(array, i);
    case arrow::Type::FLOAT:
      return value_in<arrow::FloatArray>(array, i);
    case arrow::Type::DOUBLE:
      return value_in<arrow::DoubleArray>(array, i);
    case arrow::Type::STRING:
      return text_in<arrow::StringArray>(array, i);
    case arrow::Type::LARGE_STRING:
      return text_in<arrow::LargeStringArray>(array, i);
    case arrow::Type::STRING_VIEW:
      return text_in<arrow::StringViewArray>(array, i);
    case arrow::Type::LIST:
      return list_in<arrow::ListArray>(array, i);
    case arrow::Type::LARGE_LIST:
      return list_in<arrow::LargeListArray>(array, i);
    case arrow::Type::FIXED_SIZE_LIST:
      return list_in<arrow::FixedSizeListArray>(array, i);
    case arrow::Type::STRUCT:
      return struct_in(array, i);
    case arrow::Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
      return value_of(*coded.dictionary(), coded.GetValueIndex(i));
    }
    case arrow::Type::EXTENSION:
      return value_of(*static_cast<const arrow::ExtensionArray&>(array).storage(), i);
    case arrow::Type::HALF_FLOAT:
    case arrow::Type::DATE32:
    case arrow::Type::DATE64:
    case arrow::Type::TIME32:
    case arrow::Type::TIME64:
    case arrow::Type::TIMESTAMP:
    case arrow::Type::DURATION:
    case arrow::Type::DECIMAL32:
    case arrow::Type::DECIMAL64:
    case arrow::Type::DECIMAL128:
    case arrow::Type::DECIMAL256:
      return array.GetScalar(i).ValueOrDie()->ToString();
    default:
      return Json::binary({});
  }
}

void check_names(const arrow::Schema& schema, const std::string& path) {
  for (const std::string& name : schema.field_names()) {
    if (schema.GetAllFieldIndices(name).size() > 1)
      throw InputError("{}: the Parquet file has the column {} twice", path, quote(name));
  }
}

void read_rows(const std::string& path, const std::function<void(const Json&)>& sink) {
  parquet::arrow::FileReaderBuilder builder;
  check(builder.OpenFile(path), path);
  std::unique_ptr<parquet::arrow::FileReader> reader;
  check(builder.Build(&reader), path);
  reader->set_use_threads(false);  // all ranks of a host read
  const std::shared_ptr<arrow::RecordBatchReader> batches = checked(reader->GetRecordBatchReader(), path);
  check_names(*batches->schema(), path);
  while (true) {
    const std::shared_ptr<arrow::RecordBatch> batch = checked(batches->Next(), path);
    if (batch == nullptr) return;
    check(batch->ValidateFull(), path);  // texts in UTF-8 too
    for (std::int64_t row = 0; row < batch->num_rows(); ++row) {
      Json record = Json::object();
      for (int c = 0; c < batch->num_columns(); ++c)
        record[batch->column_name(c)] = value_of(*batch->column(c), row);
      sink(record);
    }
  }
}

}  // namespace

void read_parquet(const std::string& path, const std::function<void(const Json& row)>& sink) {
  FileDescriptor::open_regular(path);  // with our own words for what is no file
  try {
    read_rows(path, sink);
  } catch (const parquet::ParquetException& error) {
    fail(path, error.what());
  }
}

}  // namespace mezzo
