"""What every key service must do: one suite, inherited by each (S2)."""

from __future__ import annotations

import pytest

from abfed.protocol.errors import AbfedError, IntegrityError, WorkspaceError
from abfed.site.kms import KeyService

KEK, OTHER = "0123456789abcdef", "fedcba9876543210"
SECRET = bytes(range(32))


class KeyServiceConformance:
    """Inherit it, and give `service` and `stranger` (the same keys, opened for another site)."""

    @pytest.fixture
    def service(self) -> KeyService:
        raise NotImplementedError

    @pytest.fixture
    def stranger(self) -> KeyService:
        raise NotImplementedError

    @pytest.fixture
    def filled(self, service: KeyService) -> KeyService:
        service.create(KEK)
        service.create(OTHER)
        return service

    def test_a_secret_comes_back_and_is_not_in_what_lies_outside(self, filled: KeyService) -> None:
        wrapped = filled.wrap(KEK, SECRET)
        assert filled.unwrap(KEK, wrapped) == SECRET
        assert SECRET not in wrapped
        assert filled.wrap(KEK, SECRET) != wrapped

    def test_it_is_bound_to_its_key(self, filled: KeyService) -> None:
        with pytest.raises(IntegrityError):
            filled.unwrap(OTHER, filled.wrap(KEK, SECRET))

    def test_it_is_bound_to_its_site(self, filled: KeyService, stranger: KeyService) -> None:
        with pytest.raises(AbfedError):
            stranger.unwrap(KEK, filled.wrap(KEK, SECRET))

    def test_every_changed_bit_and_every_cut_is_found(self, filled: KeyService) -> None:
        wrapped = filled.wrap(KEK, SECRET)
        for place in range(0, 8 * len(wrapped), 5):
            changed = bytearray(wrapped)
            changed[place // 8] ^= 1 << place % 8
            with pytest.raises(IntegrityError):
                filled.unwrap(KEK, bytes(changed))
        for end in range(0, len(wrapped), 3):
            with pytest.raises(IntegrityError):
                filled.unwrap(KEK, wrapped[:end])
        assert filled.unwrap(KEK, wrapped) == SECRET

    def test_a_key_is_not_made_twice(self, filled: KeyService) -> None:
        wrapped = filled.wrap(KEK, SECRET)
        with pytest.raises(WorkspaceError, match="already"):
            filled.create(KEK)
        assert filled.unwrap(KEK, wrapped) == SECRET

    def test_a_destroyed_key_opens_nothing_and_is_destroyed_again(self, filled: KeyService) -> None:
        wrapped, kept = filled.wrap(KEK, SECRET), filled.wrap(OTHER, SECRET)
        assert filled.holds(KEK)
        filled.destroy(KEK)
        filled.destroy(KEK)
        assert not filled.holds(KEK)
        with pytest.raises(IntegrityError, match="missing"):
            filled.unwrap(KEK, wrapped)
        with pytest.raises(IntegrityError, match="missing"):
            filled.wrap(KEK, SECRET)
        assert filled.unwrap(OTHER, kept) == SECRET
