"""What each recipe sets: every training value that is not set by the user."""

from typing import Any

# Each names every value that decides what is learned; the miniature's are the defaults of the parameters. The
# machine's own matters (gradient_checkpointing, train_dtype, checkpoints, report_to) and the data are in no recipe, but
# for the number of validation rows, which the paper's have, and the script's float16.
RECIPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    # What QLoRA on a small current model is commonly begun with.
    "current": {
        "cutoff": 512,
        "loss_on": "answers",
        "base_bits": 4,
        "epochs": 2.0,
        "learning_rate": 2e-4,
        "lr_scheduler": "cosine",
        "warmup_steps": 10,
        "weight_decay": 0.0,
        "optimizer": "auto",
        "batch_size": 16,
        "micro_batch_size": 4,
        "lora_r": 16,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_targets": ["all-linear"],
        "eval_steps": 50,
        "best_checkpoint": False,
    },
    # "Safety-Tuned LLaMAs" (arXiv 2309.07875), on LLaMA. How a value is known: reruns, two independent
    # re-implementations agree; quoted, from the paper by a third party; memory, unverified.
    "paper": {
        "n_validation": 500,  # reruns
        "cutoff": 512,  # reruns; longer rows lose their end
        "loss_on": "answers",  # ours; the released script: all
        "base_bits": 4,  # ours; the released script: 8
        "epochs": 4.0,  # reruns
        "learning_rate": 1e-4,  # reruns
        "lr_scheduler": "linear",  # memory: named nowhere, so the trainer's default
        "warmup_steps": 10,  # reruns
        "weight_decay": 0.0,  # memory: as the scheduler
        "optimizer": "adamw_torch",  # memory: as the scheduler
        "batch_size": 128,  # reruns
        "micro_batch_size": 4,  # reruns; here 4 times the cutoff at once, in packed rows: the step is the same
        "lora_r": 4,  # reruns
        "lora_alpha": 16,  # reruns
        "lora_dropout": 0.05,  # reruns
        "lora_targets": ["q_proj", "v_proj"],  # reruns; Falcon has query_key_value instead (memory)
        "eval_steps": 50,  # quoted
        "best_checkpoint": True,  # quoted: by validation loss
    },
    # The defaults of the training script that was released with the paper, where they differ from what the
    # re-implementations agree on, and where not. code: read in the script; memory: what its trainer does with what
    # the script does not name.
    "paper-script": {
        "n_validation": 2000,  # code
        "cutoff": 256,  # code; longer rows lose their end
        "loss_on": "all",  # code: on the prompt too
        "base_bits": 8,  # code: LLM.int8
        "train_dtype": "float16",  # code, with the loss scaled
        "epochs": 3.0,  # code
        "learning_rate": 3e-4,  # code
        "lr_scheduler": "linear",  # memory
        "warmup_steps": 10,  # code
        "weight_decay": 0.0,  # memory
        "optimizer": "adamw_torch",  # code
        "batch_size": 128,  # code
        "micro_batch_size": 4,  # code; here 4 times the cutoff at once, in packed rows: the step is the same
        "lora_r": 8,  # code
        "lora_alpha": 16,  # code
        "lora_dropout": 0.05,  # code
        "lora_targets": ["q_proj", "v_proj"],  # code
        "eval_steps": 50,  # code
        "best_checkpoint": True,  # code: by validation loss
    },
}
# Those of train-reward-model.
REWARD_RECIPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    # The card of the paper's second reward model; base_model, data and ordinary answers are the user's to name.
    "paper": {
        "max_tokens": 512,  # code, as the side
        "cut": "right",
        "epochs": 1.0,  # model card, as all below
        "learning_rate": 2e-5,
        "lr_scheduler": "constant",
        "batch_size": 32,
        "micro_batch_size": 8,
        "weights": "float32",  # memory: named nowhere
        "seed": 42,
    },
}
