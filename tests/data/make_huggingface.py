# mypy: disable-error-code="import-not-found,import-untyped,misc,no-untyped-call"
"""Makes the folders in `huggingface/` with transformers: tiny models, saved as `save_pretrained` saves them.

Beside the model of each lies `rows.npy`: the input embedding of the loaded model for all ids, widened to float32.
"""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

FOLDER = Path(__file__).parent / "huggingface"
TEXT = ["the table is on the floor", "a row of the table", "hope to see you soon", "nice to see you again"] * 4


def save(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, shard: str = "1GB") -> None:
    folder = FOLDER / name
    model.save_pretrained(folder, max_shard_size=shard)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    loaded = AutoModel.from_pretrained(folder, dtype=model.dtype)
    ids = torch.arange(model.config.vocab_size)
    np.save(folder / "rows.npy", loaded.get_input_embeddings()(ids).detach().float().numpy())


def wordpiece() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def byte_pairs() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=60, special_tokens=["<|endoftext|>"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<|endoftext|>")


def unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=40, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def main() -> None:
    torch.manual_seed(5)
    words = wordpiece()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=8, pad_token_id=0, **sizes)
    save("bert", BertModel(config), words)
    pickled = FOLDER / "bert_pickled"  # as transformers saved models before safetensors
    bert = BertModel(config)
    bert.save_pretrained(pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(bert.state_dict(), pickled / "pytorch_model.bin")
    tokens = words.convert_ids_to_tokens(list(range(len(words))))
    (pickled / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    np.save(pickled / "rows.npy", bert.embeddings.word_embeddings.weight.detach().numpy())
    pairs = byte_pairs()
    save("gpt2", GPT2Model(GPT2Config(vocab_size=len(pairs), n_positions=8, n_embd=8, n_layer=1, n_head=2)), pairs)
    pieces = unigram()  # T5 pads the number of its rows
    t5 = T5Config(vocab_size=len(pieces) + 3, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    save("t5", T5EncoderModel(t5), pieces)
    llama = LlamaConfig(vocab_size=len(pairs), num_key_value_heads=2, **sizes)
    save("llama_sharded", LlamaModel(llama).to(torch.bfloat16), pairs, shard="1KB")


if __name__ == "__main__":
    main()
