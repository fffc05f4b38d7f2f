"""What rows lack of the deployed rewriter, asked for."""
