"""What makes the algorithms fast: gradients as one graph, Adam on one vector, compilation."""
