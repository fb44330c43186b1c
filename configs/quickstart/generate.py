#!/usr/bin/env python3
"""Writes the quickstart's examples: short film reviews, made from sentence frames and opinion words.

Training and validation share neither a frame nor an opinion word, so that what is learned is the task and not the
words. Classes are equal in number. The same files come out every time (python3 generate.py).
"""
import json
import pathlib
import random

NOUNS = ["film", "movie", "picture", "story", "plot", "script", "dialogue", "acting", "cast", "direction", "ending",
         "opening", "camera work", "music", "score", "pacing", "editing", "lead performance", "comedy", "drama",
         "thriller", "sequel", "screenplay", "first half", "second half", "final scene", "love story", "humor"]

TRAIN = {
    "positive": ["wonderful", "superb", "delightful", "moving", "brilliant", "charming", "gripping", "beautiful",
                 "excellent", "touching", "funny", "witty", "fascinating", "powerful", "engaging", "lovely", "fresh",
                 "inspired", "hilarious", "masterful", "enjoyable", "compelling", "clever", "impressive"],
    "negative": ["dull", "awful", "boring", "tedious", "clumsy", "stupid", "lifeless", "horrible", "pointless",
                 "silly", "painful", "weak", "predictable", "flat", "annoying", "ridiculous", "shallow", "lame",
                 "forgettable", "messy", "bland", "pathetic", "empty", "contrived"],
    "frames": ["the {noun} is {word} .",
               "a {word} {noun} from start to finish .",
               "i found the {noun} {word} .",
               "the {noun} was {word} , and so was the {other} .",
               "this is a {word} piece of work .",
               "what a {word} {noun} !",
               "the {noun} is as {word} as the {other} .",
               "one of the most {word} films of the year .",
               "it has a {word} {noun} and a {word2} {other} .",
               "everything about the {noun} feels {word} .",
               "the director has made a {word} {noun} .",
               "it is a {word} , {word2} {noun} .",
               "you will remember the {word} {noun} .",
               "the {noun} is {word} and the {other} is {word2} .",
               "from its {word} {noun} to its {word2} {other} .",
               "nobody told me that the {noun} would be this {word} ."],
}

VALIDATION = {
    "positive": ["great", "terrific", "amazing", "fantastic", "outstanding", "splendid", "marvelous", "stunning",
                 "remarkable", "entertaining", "perfect", "magnificent", "satisfying", "heartwarming", "captivating",
                 "intelligent"],
    "negative": ["terrible", "bad", "dreadful", "poor", "disappointing", "unfunny", "worthless", "mediocre", "ugly",
                 "tiresome", "dumb", "atrocious", "miserable", "incoherent", "hollow", "inept"],
    "frames": ["overall the {noun} turns out to be {word} .",
               "critics were right to call the {noun} {word} .",
               "watching it , my friends kept saying how {word} the {noun} looked .",
               "with its {word} {noun} , the show lasts two hours .",
               "my wife and i both thought that it had a {word} {noun} .",
               "there is something {word} in the way the {noun} unfolds .",
               "at the end of the day we got a {word} {noun} .",
               "to put it simply , the {noun} seemed {word} to me .",
               "few releases this season have a {noun} that is so {word} .",
               "the audience left talking about a {word} {noun} ."],
}


def article(text):
    """"a awful" -> "an awful"."""
    words = text.split(" ")
    for i in range(len(words) - 1):
        if words[i] == "a" and words[i + 1][0] in "aeiou":
            words[i] = "an"
    return " ".join(words)


def examples(parts, count, seed):
    rng = random.Random(seed)
    seen, rows = set(), []
    while len(rows) < count:
        label = len(rows) % 2
        words = parts["positive" if label else "negative"]
        word, word2 = rng.sample(words, 2)
        noun, other = rng.sample(NOUNS, 2)
        sentence = article(rng.choice(parts["frames"]).format(noun=noun, other=other, word=word, word2=word2))
        if sentence in seen:
            continue
        seen.add(sentence)
        rows.append({"sentence": sentence, "label": label})
    rng.shuffle(rows)
    return rows


def main():
    assert not set(TRAIN["positive"] + TRAIN["negative"]) & set(VALIDATION["positive"] + VALIDATION["negative"])
    assert not set(TRAIN["frames"]) & set(VALIDATION["frames"])
    folder = pathlib.Path(__file__).parent
    for name, rows in (("train", examples(TRAIN, 1000, 1)), ("validation", examples(VALIDATION, 600, 2))):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
