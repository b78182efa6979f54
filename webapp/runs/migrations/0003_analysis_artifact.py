from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("runs", "0002_run_kind"),
    ]

    operations = [
        migrations.AlterField(
            model_name="artifact",
            name="kind",
            field=models.CharField(
                choices=[("adapter", "Adapter"), ("merged", "Merged model"), ("model", "Model"), ("analysis", "Analysis")], max_length=16
            ),
        ),
    ]
