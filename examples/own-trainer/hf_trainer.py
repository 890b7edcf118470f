"""Palate's objectives in a `transformers.Trainer`: one title against seven others, by S-DPO.

    python examples/own-trainer/hf_trainer.py

The data are made up. A title is a word of one of four tastes, and a name. A prompt is four titles,
most of one taste; so is the right answer, and no wrong one. A tiny Llama starts at random, and its
frozen copy is the reference. Printed: how often the right title is first, on prompts held out.
"""

import copy
import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments

from palate.objectives import CandidateScores, s_dpo

MODEL: dict = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
TRAINING: dict = {"learning_rate": 2e-3, "per_device_train_batch_size": 32}
TRAINING |= {"remove_unused_columns": False, "save_strategy": "no", "disable_tqdm": True}


def log_probs(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """(B, K) log π(title | prompt) of tokens (B, K, T): the sum over the title's, the last two."""
    rows = tokens.flatten(0, 1)
    logits = model(input_ids=rows).logits[:, -3:-1].float()  # a token is read off the one before
    return logits.log_softmax(dim=2).gather(2, rows[:, -2:, None]).sum((1, 2)).view(len(tokens), -1)


class PreferenceTrainer(Trainer):
    def __init__(self, model: LlamaForCausalLM, *args, **kwargs) -> None:
        super().__init__(model, *args, **kwargs)
        self.reference = copy.deepcopy(model).eval().requires_grad_(False)
        self.model_accepts_loss_kwargs = False  # the loss is a mean: divide it when accumulating

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        policy, reference = (log_probs(net, inputs["tokens"]) for net in (model, self.reference))
        loss = s_dpo(CandidateScores(policy, reference, levels=inputs["levels"]), beta=1.0).mean()
        return (loss, {"scores": policy}) if return_outputs else loss


torch.manual_seed(0)
torch.set_num_threads(1)  # of a model this small, threads would only wait for each other
words, taste = torch.randperm(16).view(4, 4), torch.randint(4, (2500, 1))
is_own = torch.rand(2500, 12) < torch.tensor([0.75] * 4 + [1.0] + [0.0] * 7)  # read, right, wrong
tastes = torch.where(is_own, taste, (taste + torch.randint(1, 4, is_own.shape)) % 4)
chosen = words[tastes, torch.randint(4, tastes.shape)]
titles = torch.stack([chosen, torch.randint(16, 24, tastes.shape)], dim=2)
tokens = torch.cat([titles[:, None, :4].expand(-1, 8, -1, -1).flatten(2), titles[:, 4:]], dim=2)
rows = [{"tokens": one, "levels": (torch.arange(8) == 0).long()} for one in tokens[:2000]]
model = LlamaForCausalLM(LlamaConfig(vocab_size=24, num_attention_heads=2, **MODEL))
with tempfile.TemporaryDirectory() as folder:
    plan = TrainingArguments(folder, use_cpu=True, **TRAINING)
    trainer = PreferenceTrainer(model, plan, train_dataset=rows)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
for stage, net in ("before", trainer.reference), ("after", model.eval()):
    scores = log_probs(net, tokens[2000:])
    print(f"HR@1 {stage}: {(scores[:, :1] > scores[:, 1:]).all(dim=1).float().mean():.4f}")
