"""`checkpoint_epochN` names what exists and can be merged."""

from recipes.epoch_links import link_epoch


def save(output, step: int):
    (output / f"global_step_{step}" / "actor").mkdir(parents=True)
    (output / f"global_step_{step}" / "actor" / "fsdp_config.json").write_text("{}")
    (output / f"global_step_{step}" / "data.pt").touch()
    return output / f"global_step_{step}"


def links(output) -> dict[str, str]:
    return {path.name: str(path.readlink()) for path in output.iterdir() if path.is_symlink()}


def test_an_epochs_end_is_linked_and_a_step_within_one_is_not(tmp_path):
    link_epoch(save(tmp_path, 20), 20, steps_per_epoch=10)
    link_epoch(save(tmp_path, 25), 25, steps_per_epoch=10)
    assert links(tmp_path) == {"checkpoint_epoch2": "global_step_20"}
    assert (tmp_path / "checkpoint_epoch2" / "actor" / "fsdp_config.json").is_file()


def test_a_link_goes_with_the_weights_that_verl_removes(tmp_path):
    link_epoch(save(tmp_path, 20), 20, steps_per_epoch=10)
    # verl leaves data.pt.
    (tmp_path / "global_step_20" / "actor" / "fsdp_config.json").unlink()
    link_epoch(save(tmp_path, 40), 40, steps_per_epoch=10)
    assert links(tmp_path) == {"checkpoint_epoch4": "global_step_40"}


def test_a_link_is_renewed_and_a_folder_of_that_name_stays(tmp_path):
    (tmp_path / "checkpoint_epoch4").mkdir()
    (tmp_path / "checkpoint_epoch2").symlink_to("nowhere")
    link_epoch(save(tmp_path, 20), 20, steps_per_epoch=10)
    link_epoch(save(tmp_path, 40), 40, steps_per_epoch=10)
    assert links(tmp_path) == {"checkpoint_epoch2": "global_step_20"}


def test_a_folder_without_weights_is_not_linked(tmp_path):
    (tmp_path / "global_step_20").mkdir()
    link_epoch(tmp_path / "global_step_20", 20, steps_per_epoch=10)
    assert links(tmp_path) == {}
