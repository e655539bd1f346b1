"""Research: spaces recorded and replayed, published recipes measured rung by rung, pictures scored again."""
