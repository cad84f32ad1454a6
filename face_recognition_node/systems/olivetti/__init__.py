"""The siamese network of the Olivetti faces."""
