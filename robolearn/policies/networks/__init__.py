"""Networks shared by backbones and heads."""
