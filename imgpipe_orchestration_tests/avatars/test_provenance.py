"""What a picture says about its making: always in XMP, and signed where a certificate is configured."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image, PngImagePlugin

from imgpipe_orchestration.avatars.provenance import signed
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.imaging.portraits.files import TRAINED, as_png, labelled, statement
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.avatars.conftest import Desk, source_of
from imgpipe_orchestration_tests.imaging.corpus import encoded, picture

XMP = statement("gpt-image-2.5-flare", standin=False)


def test_a_bought_png_keeps_its_pixels_and_gains_the_statement() -> None:
    original = encoded(picture(), "PNG")
    data = labelled(original, XMP)
    assert source_of(original) is None
    assert source_of(data) == TRAINED
    with Image.open(io.BytesIO(data)) as image:
        assert image.convert("RGB").tobytes() == picture().tobytes()


def test_statements_that_were_there_give_way_and_everything_else_stays() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'>somebody else's</x:xmpmeta>")
    info.add(b"caBX", b"a C2PA manifest over the bytes as they were")
    info.add_text("Software", "a model")
    file = io.BytesIO()
    picture().save(file, "PNG", pnginfo=info, dpi=(72, 72))
    original = file.getvalue()
    data = labelled(original, XMP)
    assert source_of(data) == TRAINED
    assert b"somebody else's" not in data
    assert b"caBX" in original
    assert b"caBX" not in data
    with Image.open(io.BytesIO(original)) as before, Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.tobytes() == before.tobytes()
        assert (image.info["Software"], image.info["dpi"]) == ("a model", before.info["dpi"])


def test_a_standin_says_that_it_is_one() -> None:
    assert b"stand-in" in labelled(encoded(picture(), "PNG"), statement("x-standin", standin=True))


def test_a_certificate_signs_a_manifest_that_names_the_source_and_the_parent(
    settings: Settings, tmp_path: Path
) -> None:
    services = Services(settings.model_copy(update=certificate(tmp_path)))
    selfie = signed(services, as_png(picture(), XMP), "selfie")
    cell = signed(services, as_png(picture(320, 240, seed=2), XMP), "cut from a grid", parent=selfie)
    with c2pa.Reader("image/png", io.BytesIO(cell)) as reader:
        store = json.loads(reader.json())
    manifest = store["manifests"][store["active_manifest"]]
    actions = next(a["data"]["actions"] for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))
    assert [action["action"] for action in actions] == ["c2pa.opened", "c2pa.edited", "c2pa.cropped"]
    (parent,) = manifest["ingredients"]
    assert (parent["title"], parent["relationship"]) == ("selfie", "parentOf")
    of_parent = store["manifests"][parent["active_manifest"]]
    assert of_parent["title"] == "selfie"
    assert TRAINED in json.dumps(store)
    failures = store.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    assert {failure["code"] for failure in failures} <= {"signingCredential.untrusted"}
    assert source_of(cell) == TRAINED


def test_every_cut_picture_names_the_published_selfie_as_its_parent(desk: Desk, tmp_path: Path) -> None:
    desk.services.settings = desk.services.settings.model_copy(update=certificate(tmp_path))
    task = desk.ask(1)
    desk.data()
    desk.images()
    (person,) = desk.people(task)
    stores = {}
    for name, image in person.images.items():
        data = desk.services.avatars_bucket.get(image["key"])
        with c2pa.Reader("image/png", io.BytesIO(data)) as reader:
            stores[name] = json.loads(reader.json())
    selfie = stores.pop("base")["active_manifest"]
    assert len(stores) == 4
    for store in stores.values():
        (parent,) = store["manifests"][store["active_manifest"]]["ingredients"]
        assert parent["active_manifest"] == selfie


def test_a_certificate_that_is_not_there_is_named(settings: Settings) -> None:
    services = Services(settings.model_copy(update={"c2pa_certificate": "/nowhere.pem", "c2pa_private_key": "/no.key"}))
    with pytest.raises(SettingsError, match="C2PA_CERTIFICATE"):
        signed(services, as_png(picture(), XMP), "selfie")


def certificate(folder: Path) -> dict[str, str]:
    """Settings with a certificate as C2PA wants it, signed by an authority that nobody trusts."""
    now = datetime.datetime.now(datetime.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def named(name: str) -> x509.Name:
        parts = [(NameOID.COUNTRY_NAME, "PT"), (NameOID.ORGANIZATION_NAME, "Test"), (NameOID.COMMON_NAME, name)]
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])

    def builder(subject: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named("root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(signs, False, False, False, False, not signs, not signs, False, False)

    root = (
        builder("root", root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        builder("signer", key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {"c2pa_certificate": str(folder / "chain.pem"), "c2pa_private_key": str(folder / "key.pem")}
