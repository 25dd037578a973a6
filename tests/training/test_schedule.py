from raysd.training.recipe import Recipe, cosine_factor, size_at


def test_the_rate_rises_then_falls_to_its_floor():
    factors = [cosine_factor(step, 100, 20, 0.01) for step in range(101)]
    assert factors[19] == 1 and factors[0] == 0.05
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert abs(factors[100] - 0.01) < 1e-9


def test_the_rate_is_constant_between_the_warmup_and_the_decay():
    factors = [cosine_factor(step, 100, 20, 0.01, 30) for step in range(101)]
    assert factors[:20] == [cosine_factor(step, 100, 20, 0.01) for step in range(20)]
    assert factors[20:71] == [1] * 51
    assert factors[70:] == [cosine_factor(step, 30, 0, 0.01) for step in range(31)]
    assert {cosine_factor(step, 100, 0, 0.01, 0) for step in range(101)} == {1}
    usual = [cosine_factor(step, 100, 20, 0.01) for step in range(101)]
    assert [cosine_factor(step, 100, 20, 0.01, 80) for step in range(101)] == usual
    assert Recipe().model_dump() == Recipe(decay_share=None).model_dump() and "decay_share" not in Recipe().model_dump()
    assert Recipe(decay_share=0.0).model_dump()["decay_share"] == 0


def test_images_grow_to_their_size():
    sizes = [size_at(step, 100, 224, 0.7) for step in range(101)]
    assert sizes == sorted(sizes) and sizes[0] == sizes[34] == 160 and sizes[86] == sizes[100] == 224
    assert all(size % 32 == 0 for size in sizes)
    assert {size_at(step, 100, 32, 0.72) for step in range(101)} == {24, 28, 32}
    assert {size_at(step, 100, 224, 1.0) for step in range(101)} == {224}
