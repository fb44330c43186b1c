// The rows of the config, and nothing else: for each key its name, member, type, resumption and meaning, then
// its default where a fresh Config does not say it, the tasks that use it, and names that other programs have
// for it.
#include "config_table.h"

#include <limits>

namespace mezzo::config {
namespace {

std::vector<Key> make_table() {
  constexpr std::int64_t int32_max = std::numeric_limits<std::int32_t>::max();
  // Counts fit 32 bits, so that products of two of them fit 64; steps stay exact as JSON numbers (doubles).
  const Whole<std::int64_t> count{1, int32_max};
  const Whole<std::int64_t> steps{1, 1'000'000'000'000'000};
  const Whole<std::int64_t> steps_or_none{0, steps.max};
  const Whole<std::uint64_t> seed{0, std::numeric_limits<std::uint64_t>::max()};
  const Path directory{"a directory"};
  const ModelPath model{"a directory or a model's name on the Hub"};
  const Path data_file{"the path of a data file"};
  const Text field{"the name of a field"};
  constexpr auto free = Resumption::free;
  constexpr auto job = Resumption::job;
  constexpr auto fixed = Resumption::fixed;
  const auto choices = {TaskType::classification, TaskType::multiple_choice};
  const auto generation = {TaskType::generation};
  const auto prompted = {TaskType::completion, TaskType::generation};

#define MEMBER(m) \
  [](auto& c) -> auto& { return c.m; }
  return {
      key("model.path", MEMBER(model.path), model, Resumption::fixed_outcome,
          "The model, a Hugging Face directory with config.json, safetensors and a tokenizer. A name on the "
          "Hub is "
          "looked up in the Hub's cache.")
          .defaults_to("required")
          .also_called({"model_name_or_path", "model_name", "pretrained_model_name_or_path", "base_model"}),

      key("data.train", MEMBER(data.train), TrainFilesType{data_file}, fixed,
          "The training examples; data.format says in which formats. Of several files each gives the part of "
          "the stream that its weight is of all weights.")
          .defaults_to("required for train")
          .also_called({"train_file", "dataset"}),
      key("data.validation", MEMBER(data.validation), Optional<Path>{"null", data_file}, fixed,
          "The examples that evaluations read.")
          .defaults_to("null, no evaluation; required for eval")
          .also_called({"validation_file", "eval", "test"}),
      key("data.validation_fraction", MEMBER(data.validation_fraction), Optional<Fraction>{"null", {}}, fixed,
          "This part of the training examples, the first of a shuffle by the data seed, is held out for "
          "evaluations; instead of data.validation.")
          .before_records("null")
          .also_called({"validation_split", "val_size", "val_set_size", "test_size"}),
      key("data.format", MEMBER(data.format), Choice<decltype(data_formats)>{data_formats}, fixed,
          "How data files hold their records: one JSON object a line, a JSON list, fields with commas or "
          "tabs under a header, or Parquet; `auto`: as the content shows, else the name. All but Parquet "
          "may be compressed with gzip or zstd.")
          .before_records("jsonl")
          .also_called({"file_type", "data_format"}),
      key("data.max_train_examples", MEMBER(data.max_train_examples),
          Optional<Whole<std::int64_t>>{"null", count}, fixed,
          "Train on this many examples of all files together, the first of a shuffle by the data seed.")
          .defaults_to("null, all")
          .also_called({"max_train_samples", "num_train"}),
      key("data.max_length", MEMBER(data.max_length), Optional<Whole<std::int64_t>>{"null", count}, fixed,
          "Tokens an example at most; longer ones lose tokens from the left, never the start token or the "
          "template's own words; or what data.task.overlong says.")
          .defaults_to("null, the model's")
          .also_called({"max_seq_length", "block_size", "model_max_length"}),
      key("data.task.type", MEMBER(data.task.type), Choice<decltype(task_types)>{task_types}, fixed,
          "What an example is: a text and the label of its class, a question and its options, a prompt and "
          "its completion, a conversation, or a prompt whose completions get a reward (tasks.md, chat.md, "
          "rewards.md).")
          .defaults_to("required"),
      key("data.task.records", MEMBER(data.task.records),
          Optional<Text>{"null", {"names joined by dots, with [] behind that of a list"}}, fixed,
          "Where records lie within what a file holds, as in `data[].paragraphs[].qas[]`: [] stands for each "
          "element of a list or member of an object. A record also has the fields of all that it lies in. Of "
          "a JSON file the path begins at the whole file, else at each line or row.")
          .before_records("null"),
      key("data.task.fields", MEMBER(data.task.fields), ComputedFieldsType{}, fixed,
          "Fields that are added to every record: the text that the template makes of the record's fields. "
          "With [] behind its name a field is a list, which the template writes as JSON.")
          .before_records("null"),
      key("data.task.template", MEMBER(data.task.prompt_template),
          Optional<Text>{"null", {"a text with at least one {field}"}}, fixed,
          "The prompt; {field} stands for that field of the example, a string, {a.b} and {a[0]} for one "
          "within another, {field:text} also for a number, true, false or null as JSON prints them, {{ and "
          "}} for literal braces.")
          .defaults_to("required for classification and multiple_choice; for completion and generation "
                       "data.task.prompt")
          .used_for({TaskType::classification, TaskType::multiple_choice, TaskType::completion,
                     TaskType::generation}),
      key("data.task.label", MEMBER(data.task.label), field, fixed,
          "The field that holds the label; of a multiple choice the right option's number from 0, or its "
          "text; of a list all are right and the first trains.")
          .used_for(choices)
          .also_called({"label_field", "label_column"}),
      key("data.task.verbalizers", MEMBER(data.task.verbalizers), VerbalizersType{}, fixed,
          "For each label the option that follows the prompt, its leading space included; {fields} stand "
          "for those of the example.")
          .defaults_to("required for classification")
          .used_for({TaskType::classification})
          .also_called({"labels", "label_words"}),
      key("data.task.options", MEMBER(data.task.options), OptionsType{}, fixed,
          "The options of a multiple choice that follow the prompt, their leading spaces included; {fields} "
          "stand for those of the example.")
          .defaults_to("required for multiple_choice")
          .before_records("null")
          .used_for({TaskType::multiple_choice})
          .also_called({"choices"}),
      key("data.task.loss", MEMBER(data.task.loss), Choice<decltype(task_losses)>{task_losses}, fixed,
          "Cross entropy over the options' scores (`options`), the loss of the right option's, the "
          "completion's or the assistant's tokens (`language_model`), or the part of the examples whose best "
          "option is wrong (`accuracy`), which has no gradient.")
          .defaults_to("options; language_model for completion and chat")
          .used_for(
              {TaskType::classification, TaskType::multiple_choice, TaskType::completion, TaskType::chat}),
      key("data.task.length_normalized", MEMBER(data.task.length_normalized), Flag{}, fixed,
          "An option's score is the mean of its tokens' log-probabilities, else their sum.")
          .before_records("true")
          .used_for(choices),
      key("data.task.calibration", MEMBER(data.task.calibration),
          Optional<Text>{"null", {"a text, with {fields} or without, or an empty one", true}}, fixed,
          "From an option's score the one that it has behind this prompt is taken away (MeZO's --sfc).")
          .before_records("null")
          .used_for(choices),
      key("data.task.format", MEMBER(data.task.format),
          Choice<decltype(completion_formats)>{completion_formats}, fixed,
          "The fields of a completion: data.task.template or .prompt and data.task.completion, or Alpaca's "
          "`instruction`, `input` (may be missing or empty) and `output` with Alpaca's prompt.")
          .before_records("prompt_completion")
          .used_for({TaskType::completion}),
      key("data.task.prompt", MEMBER(data.task.prompt), field, fixed,
          "The field that holds the prompt, where there is no data.task.template.")
          .used_for(prompted),
      key("data.task.completion", MEMBER(data.task.completion), field, fixed,
          "The field that holds the completion; of a list of texts all are right answers and the first "
          "trains. Of a generation task it holds the right answers, where the reward compares with them.")
          .used_for(prompted),
      key("data.task.append_eos", MEMBER(data.task.append_eos), Flag{}, fixed,
          "The tokenizer's end token follows a completion, and the last answer of a chat whose template "
          "puts nothing behind it.")
          .before_records("false")
          .used_for({TaskType::completion, TaskType::chat}),
      key("data.task.overlong", MEMBER(data.task.overlong), Choice<decltype(overlong_words)>{overlong_words},
          fixed,
          "What becomes of an example of more than data.max_length tokens: it loses tokens, of the prompt "
          "first and then at the end of the answer, is left out, or is an error. A prompt leaves "
          "generation.max_new_tokens of them free.")
          .before_records("truncate"),

      key("data.task.reward.type", MEMBER(data.task.reward.type),
          Optional<Choice<decltype(reward_rules)>>{"null", {reward_rules}}, fixed,
          "The rule that says what a completion is worth (rewards.md). `reward: number` is short for "
          "`reward: {type: number}`.")
          .defaults_to("required for generation, or a command")
          .before_records("null")
          .used_for(generation)
          .also_called({"reward_function", "reward_funcs", "reward_fn"})
          .short_form_of_section(),
      key("data.task.reward.pattern", MEMBER(data.task.reward.pattern),
          Optional<Text>{"null", {"a regular expression (Oniguruma)"}}, fixed,
          "What regex searches for in a completion: a match is worth 1; with a group in it what the last "
          "match has there has to be a right answer.")
          .defaults_to("required for regex")
          .before_records("null")
          .used_for(generation)
          .also_called({"regex", "regexp"}),
      key("data.task.reward.target", MEMBER(data.task.reward.target), Whole<std::int64_t>{0, int32_max},
          fixed, "The number of tokens that length rewards most; at most generation.max_new_tokens.")
          .before_records("0")
          .used_for(generation),
      key("data.task.reward.command", MEMBER(data.task.reward.command),
          TextsType{"a list of texts, a program and its arguments"}, fixed,
          "The program that says what completions are worth, instead of a type: one JSON line for each that "
          "it gets. It is started in the working directory.")
          .defaults_to("null, none")
          .before_records("null")
          .used_for(generation)
          .also_called({"program", "grader", "script"}),
      key("data.task.reward.workers", MEMBER(data.task.reward.workers), Whole<std::int64_t>{1, 1024}, free,
          "Processes of the command on each rank.")
          .used_for(generation),
      key("data.task.reward.timeout_s", MEMBER(data.task.reward.timeout_s),
          Number{Lowest::above_zero, 1e9, false}, free,
          "Seconds that the command may take for an answer; then it is killed and started anew.")
          .used_for(generation),
      key("data.task.reward.restarts", MEMBER(data.task.reward.restarts), Whole<std::int64_t>{0, int32_max},
          free, "How often each process of the command is started anew at most.")
          .used_for(generation)
          .also_called({"retries", "max_retries"}),
      key("data.task.reward.environment", MEMBER(data.task.reward.environment),
          TextsType{"a list of names of environment variables"}, fixed,
          "What the command sees of the environment besides PATH, HOME, LANG and TMPDIR.")
          .defaults_to("null, no more")
          .before_records("null")
          .used_for(generation)
          .also_called({"env"}),
      key("data.task.reward.on_error", MEMBER(data.task.reward.on_error),
          Choice<decltype(reward_errors)>{reward_errors}, fixed,
          "What becomes of a completion that no reward could be had for: its direction counts for nothing in "
          "that step, or the run stops.")
          .before_records("drop")
          .used_for(generation),

      key("generation.max_new_tokens", MEMBER(generation.max_new_tokens), count, fixed,
          "Tokens of a completion at most.")
          .before_records("64")
          .used_for(generation)
          .also_called({"max_tokens", "max_length", "max_completion_length"}),
      key("generation.temperature", MEMBER(generation.temperature), Number{Lowest::zero}, fixed,
          "What logits are divided by before a token is drawn; 0: the token of the largest logit.")
          .before_records("0")
          .used_for(generation),
      key("generation.top_p", MEMBER(generation.top_p), Share{}, fixed,
          "The share of the probability that tokens are drawn from, the likeliest first.")
          .before_records("1")
          .used_for(generation),
      key("generation.samples", MEMBER(generation.samples), count, fixed,
          "Completions of each prompt; what a probe is worth is their mean.")
          .before_records("1")
          .used_for(generation)
          .also_called({"num_return_sequences", "num_generations"}),
      key("generation.stop", MEMBER(generation.stop), TextsType{"a list of texts"}, fixed,
          "Texts that end a completion, as the end token does, and are no part of it.")
          .defaults_to("null, none")
          .before_records("null")
          .used_for(generation)
          .also_called({"stop_strings", "stop_sequences", "stops"}),

      key("lora.r", MEMBER(lora.r), Optional<Whole<std::int64_t>>{"null", count}, fixed,
          "The rank of the adapters.")
          .defaults_to("8; with lora.adapter its own")
          .also_called({"rank", "lora_r", "lora_rank"}),
      key("lora.lora_alpha", MEMBER(lora.lora_alpha), Optional<Number>{"null", {}}, fixed,
          "The adapters' output is scaled by lora_alpha / r.")
          .defaults_to("16; with lora.adapter its own")
          .also_called({"alpha"}),
      key("lora.target_modules", MEMBER(lora.target_modules), TargetModulesType{}, fixed,
          "The linear layers that get an adapter, as in PEFT; null stands for the default.")
          .defaults_to("the family's query and value ([q_proj, v_proj]); with lora.adapter its own")
          .also_called({"modules", "targets"}),
      key("lora.layers_to_transform", MEMBER(lora.layers_to_transform), Optional<LayersType>{"null", {}},
          fixed, "The decoder layers that get adapters.")
          .defaults_to("null, all; with lora.adapter its own")
          .also_called({"layers"}),
      key("lora.adapter", MEMBER(lora.adapter),
          Optional<ModelPath>{"null", {"the path of a PEFT adapter or its name on the Hub"}}, fixed,
          "The adapter to start from, copied into the run; r, lora_alpha, target_modules and "
          "layers_to_transform have to agree with it where they are given.")
          .defaults_to("null, a fresh one")
          .also_called({"adapter_name_or_path", "init_adapter"}),

      key("zo.space", MEMBER(zo.space), Choice<decltype(space_types)>{space_types}, fixed,
          "What is trained: LoRA adapters; the weights of linear layers themselves, along directions of low "
          "rank (EGGROLL); all tensors of the model, along directions over each of their elements (dense, "
          "as MeZO); or norms and biases alone (vectors).")
          .before_records("lora"),
      key("zo.rank", MEMBER(zo.rank), count, fixed, "The rank of a direction in each weight; of low_rank.")
          .before_records("4"),
      key("zo.target_modules", MEMBER(zo.target_modules), TargetModulesType{}, fixed,
          "The modules whose tensors are trained, named as in PEFT; of low_rank, dense and vectors.")
          .defaults_to("null, all linear layers; of dense all tensors, of vectors all norms and biases")
          .before_records("null"),
      key("zo.directions", MEMBER(zo.directions), count, fixed, "Random directions a step.")
          .also_called({"num_directions", "n_directions", "perturbations", "num_perturbations"}),
      key("zo.resample_steps", MEMBER(zo.resample_steps), steps, fixed,
          "Steps between draws of new directions; the steps in between use the last ones again, on batches "
          "of "
          "their own.")
          .before_records("1")
          .also_called({"step_interval", "update_interval"}),
      key("zo.epsilon", MEMBER(zo.epsilon), Number{}, fixed,
          "The size of the perturbation along a direction.")
          .defaults_to("1e-2, of dense 3e-3, of vectors 3e-2")
          .also_called({"eps", "zo_eps"}),
      key("zo.estimator", MEMBER(zo.estimator), Choice<decltype(estimators)>{estimators}, fixed,
          "Two losses a direction, on both its sides, or one loss a direction and one unperturbed loss a "
          "step."),
      key("zo.noise", MEMBER(zo.noise), Choice<decltype(noise_kinds)>{noise_kinds}, fixed,
          "The distribution of a direction's elements.")
          .also_called({"distribution"}),
      key("zo.normalize", MEMBER(zo.normalize), Choice<decltype(normalizations)>{normalizations}, fixed,
          "What makes a step's size independent of epsilon and of how far losses spread: differences over "
          "the standard deviation of all losses (zscore, two_sided), over that of the perturbed losses (std, "
          "as FZOO; one_sided), or differences of centred ranks. All but none need two directions at least, "
          "or zo.normalize_beta.")
          .defaults_to("zscore; for one_sided std, with one direction none")
          .before_records("none")
          .also_called({"normalization", "normalise", "fitness_shaping"}),
      key("zo.normalize_beta", MEMBER(zo.normalize_beta), Optional<Fraction>{"null", {}}, fixed,
          "What stays from step to step of a running mean of the losses' variance, by whose root zscore and "
          "std divide instead of by the step's own; so that few directions, and one, can be normalized. The "
          "curvature of zo.step_limit is a running mean then too.")
          .defaults_to("null, the step's own losses; for one direction with zscore or std 0.99")
          .before_records("null"),
      key("zo.step_limit", MEMBER(zo.step_limit), Optional<Number>{"null", {}}, fixed,
          "Holds the learning rate where the noise of all steps together raises the loss by this share of it "
          "at most, as the curvature along the directions tells; costs one unperturbed probe a step. Of "
          "two_sided.")
          .defaults_to("0.15 for two_sided with zo.normalize, else null, no limit")
          .before_records("null")
          .also_called({"trust_region"}),
      key("zo.probes_per_forward", MEMBER(zo.probes_per_forward),
          Optional<Whole<std::int64_t>>{"auto", count}, free,
          "The most probes that one forward evaluates together; it changes speed and memory, never results."),

      key("optimizer.type", MEMBER(optimizer.type), Choice<decltype(optimizer_types)>{optimizer_types}, fixed,
          "The update rule: gradient descent, with momentum, by the sign of the momentum, or Adam.")
          .also_called({"optim"}),
      key("optimizer.learning_rate", MEMBER(optimizer.learning_rate), Number{}, fixed,
          "The peak learning rate.")
          .defaults_to("sgd 3e-2, momentum and sign 4e-3, adam 2e-2; without zo.normalize 1e-4")
          .also_called({"lr"}),
      key("optimizer.weight_decay", MEMBER(optimizer.weight_decay), Number{Lowest::zero}, fixed,
          "Decoupled weight decay: each step also takes learning rate x weight_decay of the trainables away.")
          .also_called({"wd"}),
      key("optimizer.anchor_decay", MEMBER(optimizer.anchor_decay), Number{Lowest::zero}, fixed,
          "Decoupled decay towards the start, against forgetting: each step also takes learning rate x "
          "anchor_decay of the way from the start away.")
          .before_records("0")
          .also_called({"l2_sp", "anchor"}),
      key("optimizer.momentum", MEMBER(optimizer.momentum), Momentum{}, fixed,
          "What the momentum keeps of itself at a step: m = momentum m + g; of momentum and sign.")
          .before_records("0.9"),
      key("optimizer.nesterov", MEMBER(optimizer.nesterov), Flag{}, fixed,
          "The step is g + momentum m instead of m; of momentum.")
          .before_records("false"),
      key("optimizer.betas", MEMBER(optimizer.betas), BetasType{}, fixed,
          "What the averages of g and of its square keep of themselves at a step; of adam.")
          .before_records("[0.9, 0.99]")
          .also_called({"adam_beta1", "adam_beta2", "beta1", "beta2"}),
      key("optimizer.adam_epsilon", MEMBER(optimizer.adam_epsilon), Number{}, fixed,
          "Added to the root of the average square; of adam.")
          .before_records("1e-08"),
      key("optimizer.second_moment", MEMBER(optimizer.second_moment),
          Choice<decltype(second_moments)>{second_moments}, fixed,
          "An average square of each element of g, or one of each tensor's mean square; of adam.")
          .before_records("full"),
      key("optimizer.clip", MEMBER(optimizer.clip), Optional<Number>{"null", {}}, fixed,
          "The largest size of a direction's projected gradient, behind zo.normalize and before the mean "
          "over directions; a larger one is cut to it.")
          .defaults_to("null, none")
          .before_records("null")
          .also_called({"max_grad_norm", "clip_grad_norm", "gradient_clipping"}),
      key("optimizer.master", MEMBER(optimizer.master), Choice<decltype(master_types)>{master_types}, fixed,
          "What the trained tensors are held in: bf16 halves their memory, and each step rounds them "
          "stochastically; of dense.")
          .before_records("fp32"),
      key("optimizer.lr_scheduler_type", MEMBER(optimizer.lr_scheduler_type),
          Choice<decltype(lr_schedulers)>{lr_schedulers}, fixed,
          "How the learning rate goes on after the warm-up: it stays, or falls to 0 at max_steps.")
          .also_called({"schedule"}),
      key("optimizer.warmup_steps", MEMBER(optimizer.warmup_steps), steps_or_none, fixed,
          "Steps over which the learning rate rises linearly from 0; with a linear or cosine schedule only."),

      key("train.max_steps", MEMBER(train.max_steps), steps, Resumption::schedule, "Steps of the whole run.")
          .also_called({"steps", "num_steps", "epochs", "num_train_epochs", "num_epochs"}),
      key("train.batch_size", MEMBER(train.batch_size), count, fixed, "Examples of a batch, over all ranks.")
          .also_called({"per_device_train_batch_size", "batch"}),
      key("train.gradient_accumulation_steps", MEMBER(train.gradient_accumulation_steps), count, fixed,
          "Batches whose losses are added up for one step, under the same directions."),
      key("train.batch_slices", MEMBER(train.batch_slices), count, fixed,
          "Slices that a batch is cut into, so that ranks can share it; at most batch_size."),
      key("train.seed", MEMBER(train.seed), seed, fixed, "The 64-bit seed of directions and initial values."),
      key("train.data_seed", MEMBER(train.data_seed), seed, fixed, "The 64-bit seed of the examples' order.")
          .defaults_to("train.seed"),
      key("train.output_dir", MEMBER(train.output_dir), Optional<Path>{"null", directory}, job,
          "The run's folder.")
          .defaults_to("required for train"),
      key("train.eval_steps", MEMBER(train.eval_steps), steps, free, "Steps between evaluations."),
      key("train.save_steps", MEMBER(train.save_steps), steps, free, "Steps between snapshots."),
      key("train.save_total_limit", MEMBER(train.save_total_limit), count, free,
          "Snapshots that are kept; older ones are deleted."),
      key("train.logging_steps", MEMBER(train.logging_steps), steps, free,
          "Steps between lines of progress."),
      key("train.log_samples", MEMBER(train.log_samples), Whole<std::int64_t>{0, int32_max}, free,
          "Completions that are shown of each evaluation of a generation task, and kept in metrics.jsonl.")
          .used_for({TaskType::generation}),
      key("train.load_best_model_at_end", MEMBER(train.load_best_model_at_end), Optional<Flag>{"null", {}},
          free,
          "The adapter is that of the best evaluation, whose snapshot is kept beyond save_total_limit; else "
          "of the last step.")
          .defaults_to("true with validation data")
          .before_records("false")
          .also_called({"save_best", "load_best", "best"}),
      key("train.metric_for_best_model", MEMBER(train.metric_for_best_model),
          Optional<Text>{"null", {"the name of a number that evaluations have in metrics.jsonl"}}, free,
          "What evaluations are compared by: a smaller loss is better, and more of anything else; of equals "
          "the first.")
          .defaults_to(
              "null, of a generation task `eval_reward`, else `eval_accuracy` where there is one, else "
              "`eval_loss`")
          .before_records("null")
          .also_called({"best_metric", "monitor"}),
      key("train.early_stopping_patience", MEMBER(train.early_stopping_patience),
          Optional<Whole<std::int64_t>>{"null", count}, free,
          "The run ends when so many evaluations in a row were no better than the best before them.")
          .defaults_to("null, it does all steps")
          .before_records("null")
          .also_called({"patience", "early_stopping"}),
      key("train.trajectory_sync_steps", MEMBER(train.trajectory_sync_steps), steps, free,
          "Steps between moments when the trajectory is made to reach the disk."),
      key("train.hash_steps", MEMBER(train.hash_steps), steps, free,
          "Steps between comparisons of the trainables' hash across ranks."),
      key("train.resume_from_checkpoint", MEMBER(train.resume_from_checkpoint), ResumeType{}, job,
          "Go on from the newest valid snapshot in output_dir if there is one, start afresh, or go on from "
          "the snapshot named."),

      key("runtime.device", MEMBER(runtime.device), Choice<decltype(devices)>{devices},
          Resumption::fixed_outcome,
          "Where to compute; `reference` is slow, plain code for checking the others."),
      key("runtime.dtype", MEMBER(runtime.dtype), Choice<decltype(precisions)>{precisions},
          Resumption::fixed_outcome, "The type of weights and activations; trainables are always fp32.")
          .also_called({"precision", "torch_dtype"}),
      key("runtime.threads", MEMBER(runtime.threads), Optional<Whole<std::int64_t>>{"auto", count}, job,
          "CPU threads a rank.")
          .also_called({"num_threads"}),
      key("runtime.timeout_s", MEMBER(runtime.timeout_s), Number{Lowest::above_zero, 1e9, false}, job,
          "Seconds without a heartbeat after which a rank is given up."),
      key("runtime.start_timeout_s", MEMBER(runtime.start_timeout_s), Number{Lowest::above_zero, 1e9, false},
          job, "Seconds within which all ranks have to have joined the job."),
  };
#undef MEMBER
}

}  // namespace

const std::vector<Key>& table() {
  static const std::vector<Key> rows = make_table();
  return rows;
}

}  // namespace mezzo::config
