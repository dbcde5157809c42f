"""The impure part: segments of rounds run, and what is written, resumed and told of them."""
