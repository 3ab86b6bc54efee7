"""A small library for the Reactive Transformer: a transformer that answers from a fixed-size memory."""
