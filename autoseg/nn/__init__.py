"""Operations and building blocks that spaces and baselines share."""
