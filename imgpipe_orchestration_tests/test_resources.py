"""The resources, as an asset of somebody who knows Dagster takes them."""

from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster_aws.s3 import S3Resource

from imgpipe_orchestration import resources
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.conftest import StandInAccess


def test_an_asset_of_ones_own_gets_a_client_of_each_system(settings: Settings, standins: StandInAccess) -> None:
    @dg.asset
    def theirs(
        database: resources.DatabaseResource,
        s3: resources.S3Resource,
        mongo: resources.MongoResource,
        openai: resources.OpenAIResource,
    ) -> dict[str, Any]:
        engine = database.get_engine()
        with closing(engine.connect()) as connection:
            rows = connection.execute(sa.text("SELECT count(*) FROM media_files")).scalar_one()
        engine.dispose()
        s3.get_client().create_bucket(Bucket="their-bucket")
        buckets = [bucket["Name"] for bucket in s3.get_client().list_buckets()["Buckets"]]
        with mongo.get_database().client as client:
            collection = client.get_default_database()["theirs"]
            collection.insert_one({"name": "one"})
            documents = collection.count_documents({})
        with openai.get_client() as asked:
            answer = asked.embeddings.create(model="text-embedding-3-small", input="a cup")
        return {"rows": rows, "buckets": buckets, "documents": documents, "embedding": len(answer.data[0].embedding)}

    pointed = {
        "database": {"url": settings.database_url},
        "s3": {
            "endpoint_url": settings.s3_endpoint,
            "aws_access_key_id": settings.s3_access_key,
            "aws_secret_access_key": settings.s3_secret_key,
            "region_name": settings.s3_region,
        },
        "mongo": {"url": settings.mongodb_url},
        "openai": {"api_key": "sk-theirs", "base_url": standins.openai_url},
    }
    assert issubclass(resources.S3Resource, S3Resource)
    found = dg.materialize(
        [theirs],
        resources={name: one for name, one in resources.build().items() if name in pointed},
        run_config={"resources": {name: {"config": config} for name, config in pointed.items()}},
    ).output_for_node("theirs")
    assert found["rows"] == 0
    assert "their-bucket" in found["buckets"]
    assert (found["documents"], found["embedding"]) == (1, 1536)


def test_a_profile_of_aws_goes_before_the_settings_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text("[theirs]\naws_access_key_id = AKIATHEIRS\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    client = resources.S3Resource(profile_name="theirs").get_client()
    assert "AKIATHEIRS" in client.generate_presigned_url("list_buckets")
